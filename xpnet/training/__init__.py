"""What `xpnet.fit` is made of: passes over batches, steps, the judge of epochs, the state to go on from."""
