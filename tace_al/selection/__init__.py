"""Which frames to label: calibration, acquisition, diversity, stopping."""
