"""tace-al: active learning and molecular dynamics with committees of TACE potentials."""
