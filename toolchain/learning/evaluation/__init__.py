"""What a trained network and its spiking counterparts do on a data set, measured and drawn."""
