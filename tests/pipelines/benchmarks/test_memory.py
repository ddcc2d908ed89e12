import torch
from pipelines.benchmarks.memory import peak_memory

MIB = 2**20


def test_peak_memory_is_that_of_tensors_held_at_a_time() -> None:
    def in_turn() -> None:
        for _ in range(3):
            torch.zeros(MIB)

    def together() -> list[torch.Tensor]:
        return [torch.zeros(MIB) for _ in range(3)]

    held = torch.zeros(MIB)  # not made in the function
    assert 4 * MIB <= peak_memory(in_turn, "cpu") < 5 * MIB
    assert 12 * MIB <= peak_memory(together, "cpu") < 13 * MIB
    assert held.sum() == 0


def test_memory_of_a_backward_pass_counts() -> None:
    x = torch.rand(MIB, requires_grad=True)
    # sin keeps its input for the way back; three results, and then two gradients at a time.
    assert peak_memory(lambda: x.sin().sin().sin().sum().backward(), "cpu") >= 16 * MIB
