"""What a person may order of a broker at work, and who may: for all that changes something."""
