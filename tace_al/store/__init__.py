"""Every structure, label and model of a campaign, in MongoDB or its embedded twin."""
