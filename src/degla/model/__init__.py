"""ROOM 3 - model: a model name enters; an `Encoder` (open_clip behind encode_images and encode_captions), its averaged
or frozen `Teacher` and checkpoint folders that open_clip itself can load leave.

Flow: batches -> embeddings of student and teacher
"""
