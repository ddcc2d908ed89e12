"""What the job asks of a proposal generator."""

from collections.abc import Sequence
from typing import Any, Protocol

from stage1_proposals.photos import PhotoError
from stage1_proposals.proposals import Batch, Proposals


class ProposalGenerator(Protocol):
    """Makes proposals of photos from their feature maps; a frozen dataclass whose fields are its settings.

    One made elsewhere is named `package.module:Class` and takes its settings as keyword arguments.
    """

    def parameters(self) -> dict[str, Any]:
        """Name and settings, JSON-ready; two runs with equal ones make equal proposals."""

    def __call__(self, batch: Batch) -> Sequence[Proposals | PhotoError]:
        """Proposals of each photo of the batch, or why it cannot have any.

        They may depend on nothing but the photo and the settings.
        """
