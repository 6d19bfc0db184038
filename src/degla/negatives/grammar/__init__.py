"""What is known about a caption without a language model: parts of speech, phrases, words and what they exclude.

phrases.py tags captions (tokens.py, chunks.py); meaning.py and paraphrase.py tell a text that says the same from one
that does not; words.py splits and inflects; lexicon.py, groups.py, relations.py, additions.py and exclusion.py know
which words exclude each other (`lexicon_data/`, derived from WordNet by tools/build_lexicon.py or written by hand);
edits.py, orders.py and agreement.py change a caption.
"""
