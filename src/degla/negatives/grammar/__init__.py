"""Analysis of captions without a language model: parts of speech, phrases, words and which words exclude each other.

phrases.py tags captions and chunks.py finds their noun phrases; meaning.py decides whether two texts mean the same;
words.py splits and inflects; lexicon.py, relations.py and exclusion.py define which words exclude each other
(`lexicon_data/`, derived from WordNet by tools/build_lexicon.py or written by hand); edits.py
changes a caption; orders.py and suitability.py decide which phrases may change places.
"""
