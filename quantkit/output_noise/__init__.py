"""The distance of networks from a reference on the same batches: noise-to-signal ratio of the outputs, in one pass.

The data is processed in blocks that fit into memory. For each block the reference runs once and is closed, and every
candidate is opened, run over the block and closed again, one candidate per thread, or one on all threads where weights
are large. So memory holds one block and few candidates, regardless of the number of samples and candidates.

Outputs that a TopK or an NMS selects are measured before the selection, which small errors may change altogether.
The energies of a batch are added up exactly, so that totals of parts of the data add up to those of all of it.

The measure is the signal-to-quantization-noise ratio, 10·log10(Σ ref² / Σ (ref − out)²). For several outputs the ratios
are averaged, so that large values do not hide small ones.

NoiseMeter      measures candidates against a reference
NoiseCandidate  a network to measure
OutputNoise     what was found
NoiseTotals     the sums over samples that it follows from, with EnergySums for each candidate
"""

from quantkit.output_noise.energies import EnergySums, NoiseTotals, OutputNoise
from quantkit.output_noise.meter import NoiseCandidate, NoiseMeter

__all__ = ["EnergySums", "NoiseCandidate", "NoiseMeter", "NoiseTotals", "OutputNoise"]
