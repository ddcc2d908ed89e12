"""The GPU that is not there finds what a GPU would, and counts what would make it wait."""

import pytest
import torch

from tests.fake_gpu import DOWN, SCALAR, SIZE, UP, FakeGPU, fake_gpu, values_of


def waits(gpu: FakeGPU) -> dict[str, int]:
    counts: dict[str, int] = {}
    for (_, kind), number in gpu.waits.items():
        counts[kind] = counts.get(kind, 0) + number
    return counts


def test_it_computes_what_a_cpu_computes_and_stays_on_the_gpu() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    images = torch.randn(2, 3, 8, 8)
    expected = layer(images)
    with fake_gpu() as gpu:
        found = layer.to("cuda")(images.to("cuda", non_blocking=True))
        rows = torch.arange(2, device="cuda")
        found[rows, rows] *= 2
    expected[[0, 1], [0, 1]] *= 2
    assert found.device == torch.device("cuda", 0)
    torch.testing.assert_close(values_of(found), expected)
    assert set(waits(gpu)) == {UP}  # the layer's parameters


def test_a_planted_device_mismatch_is_found() -> None:
    with fake_gpu():
        kernels = torch.ones(2, 3, device="cuda")
        with pytest.raises(RuntimeError, match=r"test_fake_gpu.py:test_a_planted_device.*on the same device"):
            kernels.add(torch.arange(3))
        with pytest.raises(RuntimeError, match="on the same device"):
            torch.cat([kernels, torch.zeros(1, 3)])


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("scores.cpu()", DOWN),
        ("scores.tolist()", DOWN),
        ("scores.sum().item()", DOWN),
        ("bool(scores.any())", DOWN),
        ("scores.equal(scores)", DOWN),
        ("scores.nonzero()", SIZE),
        ("scores[scores > 0]", SIZE),
        ("scores.unique()", SIZE),
        ("scores[torch.tensor([0])]", UP),
        ("torch.tensor([1], device='cuda')", UP),
        ("scores.new_tensor([1])", UP),
        ("scores.__setitem__(rows, 1)", SCALAR),
        ("scores * torch.tensor(2)", SCALAR),
    ],
)
def test_what_makes_the_gpu_wait_is_counted_with_its_place(code: str, kind: str) -> None:
    with fake_gpu() as gpu:
        names = {"torch": torch, "scores": torch.ones(1, device="cuda"), "rows": torch.arange(1, device="cuda")}
        assert not gpu.waits
        eval(code, names)
    assert dict(gpu.waits) == {("test_fake_gpu.py:test_what_makes_the_gpu_wait_is_counted_with_its_place", kind): 1}


def test_what_makes_nothing_wait_is_not_counted() -> None:
    with fake_gpu() as gpu:
        scores, rows = torch.ones(4, device="cuda"), torch.arange(2, device="cuda")
        scores[rows] = scores.new_ones(())
        torch.tensor([1]).to("cuda", non_blocking=True)
        _ = scores[rows] + scores[1:3] * 2 - scores.topk(2).values
        assert len(scores) == scores.shape[0] == 4
    assert not gpu.waits


def test_bfloat16_under_autocast() -> None:
    with fake_gpu(), torch.autocast("cuda", torch.bfloat16):
        product = torch.ones(2, 2, device="cuda") @ torch.ones(2, 2, device="cuda")
    assert product.dtype == torch.bfloat16
