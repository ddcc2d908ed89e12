"""timm networks as MMDetection backbones."""

from collections.abc import Sequence
from typing import Any

import timm
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

STRIDES = (4, 8, 16, 32)


@MODELS.register_module()
class TimmBackbone(BaseModule):
    """A timm network that gives its features at strides 4, 8, 16 and 32.

    Weights are not downloaded: load a checkpoint, or pass MMEngine's `init_cfg=dict(type="Pretrained", ...)`.

    Args:
        model_name: timm's name, e.g. `tf_efficientnet_lite0`.
        frozen_stages: as in MMDetection's ResNet: -1 freezes nothing, 0 the layers up to stride 2, and
            k = 1 ... 4 those up to stride `2 ** (k + 1)`. Frozen layers stay in eval mode.
        norm_eval: keep every batch norm in eval mode.
        out_indices: which of the four it gives, as in MMDetection's ResNet.
        init_cfg: as in MMEngine; its names start with `model.`, followed by timm's own.

    Attributes:
        channels: number of channels of the outputs.

    Raises:
        ValueError: the network lacks one of the strides.
    """

    def __init__(
        self,
        model_name: str,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        network: Any = timm.create_model(model_name, pretrained=False, features_only=True)
        self.model = network
        infos = network.feature_info.get_dicts()
        index = {info["reduction"]: i for i, info in enumerate(infos)}
        if missing := [stride for stride in STRIDES if stride not in index]:
            raise ValueError(f"{model_name} has no features of stride {missing}")
        self._outputs = [index[STRIDES[number]] for number in out_indices]
        self.channels = tuple(infos[i]["num_chs"] for i in self._outputs)
        self.norm_eval = norm_eval
        last = [info["module"] for info in infos if info["reduction"] <= 2 ** (frozen_stages + 1)]
        self._frozen = _modules_up_to(self.model, last[-1]) if frozen_stages >= 0 and last else []
        for module in self._frozen:
            module.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> (B, c_i, H / s_i, W / s_i) for the strides s = 4, 8, 16, 32, or those of `out_indices`."""
        features = self.model(images)
        return tuple(features[i] for i in self._outputs)

    def train(self, mode: bool = True) -> "TimmBackbone":
        """Set training mode for all but frozen layers and, with `norm_eval`, batch norms."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def _modules_up_to(network: nn.Module, name: str) -> list[nn.Module]:
    """The modules that a network's input passes up to and including the submodule `name`, in order."""
    modules = dict(network.named_modules())
    if name not in modules:
        name = name.replace(".", "_")  # timm flattens `stages.0` to `stages_0` in some networks
    paths = list(modules)
    # A module that contains the submodule contains later layers, too.
    return [modules[path] for path in paths[1 : paths.index(name) + 1] if not name.startswith(f"{path}.")]
