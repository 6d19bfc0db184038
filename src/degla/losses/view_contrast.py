"""View contrast: the student's view of an image has to find the teacher's whole view of it among those of the batch."""

from __future__ import annotations

from dataclasses import dataclass

from degla.losses.core import Embeddings, Loss, LossValue, Processes, Target, log_partition
from degla.ranges import Factor, Positive


@dataclass(frozen=True)
class ViewContrast(Loss):
    """Pull each image to the teacher's embedding of the same image; push those of other images away, both ways.

    Formula:  1/2 mean_i -log e^{<v_i,z_i>/tau} / sum_j e^{<v_i,z_j>/tau}
            + 1/2 mean_i -log e^{<v_i,z_i>/tau} / sum_j e^{<v_j,z_i>/tau}
              v: images as the student reads them, z: the teacher's (no gradient), tau: `temperature`
    Shapes:   see Embeddings; returns a scalar, the mean over pairs
    Scope:    global - gathers images of student and teacher
    Source:   PointACL, arXiv 2411.14744: contrast of a masked and a whole view; here the whole view is the teacher's
    Differs:  the paper's temperature could not be determined; its whole view is the student's own. Without
              `views.left_out` both see the whole image, and it is a distillation
    Cost:     one teacher pass over the images, which a mask by its attention needs anyway
    """

    weight: Factor = 0.5
    """Weight of the loss, >= 0."""
    temperature: Positive = 0.1
    """Temperature tau, > 0."""

    needs = frozenset({"image"})
    same_width = True
    reads_captions = False
    scaled = False

    def value(self, student: Embeddings, teacher: Target, processes: Processes) -> LossValue:
        """Mean over the images of all processes."""
        whole = teacher.require("image")
        place = processes.places(whole)
        scale = whole.new_full((), 1 / self.temperature)
        forward = log_partition(student.image, processes.gather_constant(whole), scale, target=place)
        back = log_partition(whole, processes.gather(student.image), scale, target=place)
        return processes.mean((forward + back) / 2)
