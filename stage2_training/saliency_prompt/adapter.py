"""Base of the adapters that bring Saliency Prompt to MMDetection's own query-based detectors."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample
from mmdet.utils import ConfigType
from torch import Tensor

from stage1_proposals.errors import UserError
from stage2_training.saliency_prompt.detector import SaliencyPromptMixin
from stage2_training.saliency_prompt.recording import QueryDecoder, recording


class SaliencyPromptAdapter(SaliencyPromptMixin, BaseDetector):
    """Comes before a detector in the bases of its Saliency Prompt variant, which says where its `query_decoder` is.

    In training only, the queries that enter the first decoder layer get prompts, and the queries that each layer puts
    out a loss. A prediction made before the first layer keeps the plain queries. Prompts are compared with the learned
    queries, which are the same for every image: `match_on` and `add_to` make no difference.

    Args:
        saliency_prompt: fields of `SaliencyPromptSettings`.
        kwargs: those of the detector.
    """

    def __init__(self, saliency_prompt: ConfigType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.init_saliency_prompt(saliency_prompt, self.query_decoder().learned.shape[1])

    @abstractmethod
    def query_decoder(self) -> QueryDecoder:
        """Where this detector keeps what Saliency Prompt needs."""

    def loss(self, batch_inputs: Tensor, batch_data_samples: Sequence[DetDataSample]) -> dict[str, Tensor]:
        """The detector's losses and `s0.loss_kernel`, `s1.loss_kernel`, ... (Eq. 9), one for each layer.

        Raises:
            UserError: the settings' level of the pyramid does not exist, or has not the queries' number of channels.
        """
        decoder = self.query_decoder()

        def prompted(queries: Tensor, levels: Sequence[Tensor]) -> Tensor:
            self._check_level(levels, queries.shape[2])
            return self.prompted(queries, decoder.learned, levels, batch_data_samples)

        with recording(decoder, prompted) as record:
            losses: dict[str, Tensor] = super().loss(batch_inputs, batch_data_samples)
        assignments = record.assignments(len(batch_data_samples))
        return losses | self.kernel_losses(record.queries, assignments, batch_data_samples)

    def _check_level(self, levels: Sequence[Tensor], channels: int) -> None:
        self.settings.check_level(len(levels))
        found = levels[self.settings.level].shape[1]
        if found != channels:
            raise UserError(
                f"saliency_prompt.level {self.settings.level}: has {found} channels, but the queries have {channels}; "
                "use a level, or a pixel decoder, with as many"
            )
