"""Reading published Cartesian TACE models into this package's network (`tace==0.1.0`, MIT)."""
