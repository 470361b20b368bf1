"""The type checker of `make test`: shapes of tensors as declared, an int may pass for a float."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
