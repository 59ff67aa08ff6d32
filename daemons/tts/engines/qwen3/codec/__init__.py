"""The codec's decoder: 12.5 frames of 16 codes a second become 24 kHz audio, 1920 samples a frame."""
