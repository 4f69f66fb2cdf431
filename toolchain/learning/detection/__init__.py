"""Object detection: cells and boxes, training, and what detections are worth.

geometry <- assignment <- loss <- training
outputs (maps) -> detections (boxes on the host) -> average precision
"""
