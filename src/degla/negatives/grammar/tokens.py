"""A word of a caption with what is known of it; the same object stands in a negative wherever the word was moved."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Token:
    """A word or punctuation mark.

    Attributes:
        text: as written.
        lower: `text` in lower case.
        tag: part of speech, Penn Treebank names ("NN", "JJ", "VBG", ...).
        lemma: dictionary form, lower case.
        role: dependency label ("amod", "nsubj", ...).
        governor: index of the word that it depends on.
        glued: no space before it in the caption.
    """

    text: str
    lower: str
    tag: str
    lemma: str
    role: str = ""
    governor: int = -1
    glued: bool = False

    @property
    def is_noun(self) -> bool:
        """Whether the tag is a noun's."""
        return self.tag in ("NN", "NNS", "NNP", "NNPS")

    @property
    def is_adjective(self) -> bool:
        """Whether the tag is an adjective's."""
        return self.tag in ("JJ", "JJR", "JJS")

    @property
    def is_verb(self) -> bool:
        """Whether the tag is a verb's."""
        return self.tag.startswith("VB")
