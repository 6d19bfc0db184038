"""ROOM 2 - data: captions, accepted negatives and images enter; batches with a negatives axis and a mask leave."""
