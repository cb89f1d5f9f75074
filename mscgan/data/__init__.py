"""The shard contract, the global order of the pairs, and the loader that turns both into batches on the device."""
