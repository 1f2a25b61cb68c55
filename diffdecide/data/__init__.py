"""Episodes, their file formats, windows over them and normalisers.

Import the modules themselves; nothing is imported here, so that `import diffdecide.data` stays light:

- `diffdecide.data.episode`: `Episode`, `fingerprint`, `DataError`
- `diffdecide.data.readers`: `read`, `read_hdf5`, `iter_hdf5`, `read_d4rl`, `read_minari`, `read_omnisafe`
- `diffdecide.data.writers`: `HDF5Writer`, `ShardedWriter`, `write_hdf5`, `write_minari`
- `diffdecide.data.normalize`: `Normalizer`
- `diffdecide.data.returns`: returns- and costs-to-go
- `diffdecide.data.ego_motion`: poses from the agent's own sensors
- `diffdecide.data.step_features`, `diffdecide.data.window_rows`: the parts of a window
- `diffdecide.data.windows`: `WindowConfig`, `WindowStatistics`, `WindowDataset`
"""
