"""Qwen3-TTS (12 Hz) on torch: a talker that writes 12.5 frames of codes a second, and a codec that makes them audible.

Needs torch, numpy and safetensors alone. Parameters bear the names of the published checkpoints.
"""
