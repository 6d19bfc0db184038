"""What is known about a caption without a language model: parts of speech, phrases, words and what they exclude.

phrases.py tags captions and chunks.py finds their noun phrases; meaning.py tells a text that says the same from one
that does not; words.py splits and inflects; lexicon.py, relations.py and exclusion.py know which words exclude each
other (`lexicon_data/`, derived from WordNet by tools/build_lexicon.py or written by hand); edits.py
changes a caption, orders.py and suitability.py say which phrases may change places.
"""
