"""The TACE network, its committee, training and calculators."""
