"""The rules of lint: each with its reason, its remedy, and the source of this knowledge.

Sources are files of lava-nc 0.10.0 and lava-dl 0.6.0, the last releases, unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from exports.netx.layout import LAYERS, OWN
from exports.netx.stock_loader import ELSEWHERE, HERE


class Level(str, Enum):
    """Severity of a rule; the names are SARIF's.

    - error: the file is damaged, or runs as another network than it describes;
    - warning: it runs correctly here, but not everywhere;
    - note: information only.
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes
    ----------
    id:
        Stable name in reports.
    """

    id: str
    level: Level
    title: str
    why: str
    remedy: str
    source: str


_ALL = (
    Rule(
        "unreadable",
        Level.ERROR,
        "not a readable HDF5 file",
        "it is truncated, damaged or of another format",
        "export it again",
        "HDF5 library",
    ),
    Rule(
        "hostile",
        Level.ERROR,
        "more than a network file needs",
        "links to elsewhere, huge declared shapes and the like cost whoever opens the file memory, "
        "time or secrets",
        "do not open it with other tools; export it again from a source you trust",
        "HDF5 format: external links and storage, virtual datasets, filters",
    ),
    Rule(
        "crash",
        Level.ERROR,
        "reading it ends the process",
        "the HDF5 library crashes on this file, or takes more memory or time than is allowed",
        "do not open it with other tools; export it again from a source you trust",
        "HDF5 library",
    ),
    Rule(
        "no-network",
        Level.ERROR,
        "no network file",
        f"it is HDF5, but has neither the group '{OWN}' of this project's files nor the group "
        f"'{LAYERS}' of lava-dl's",
        "convert a network first: spikeport convert",
        "exports/netx/FORMAT.md; netx/hdf5.py",
    ),
    Rule(
        "malformed",
        Level.ERROR,
        "does not describe a layer",
        "a dataset is missing, of the wrong kind, type or shape, or does not fit its neighbours",
        "export it again",
        "netx/hdf5.py",
    ),
    Rule(
        "unknown-layer",
        Level.ERROR,
        "a layer type that the loader does not build",
        "pool, average, concat, unpool and convT raise NotImplementedError, dense_comp an "
        "AttributeError; any other name is silently skipped, and the layers around it are "
        "joined",
        "rewrite it with conv and dense layers, or convert it with this project",
        "netx/hdf5.py, Network._create_layers",
    ),
    Rule(
        "only-there",
        Level.NOTE,
        "what lava-dl's own loader runs and this project does not",
        "SDNN neurons, recurrent layers, and complex weights with resonate-and-fire neurons are "
        "refused by `Network` and by every command; they are not checked here",
        ELSEWHERE,
        "netx/hdf5.py, Network._create, get_neuron_params",
    ),
    Rule(
        "half-complex",
        Level.ERROR,
        "complex weights without resonate-and-fire neurons, or these with real weights",
        "the loader stops at it: CUBA and SDNN neurons have no port for imaginary currents, RF "
        "neurons none for real ones",
        "export it again: complex weights go with RF neurons, and with no others",
        "netx/blocks/process.py, ComplexDense, Dense, Input, Conv",
    ),
    Rule(
        "unknown-neuron",
        Level.ERROR,
        "a neuron type that the loader does not know",
        "it stops with \"'NoneType' object has no attribute 'pop'\"",
        "use LOIHI/CUBA, SDNN or an RF neuron",
        "netx/hdf5.py, get_neuron_params",
    ),
    Rule(
        "unknown-dataset",
        Level.ERROR,
        "a dataset that the loader drops",
        "its content is silently ignored; `Network` refuses the file",
        "remove it, or express it with what the loader reads",
        "netx/hdf5.py",
    ),
    Rule(
        "weights-zeroed",
        Level.ERROR,
        "weights that are loaded as 0",
        "the loader scales dense weights to 8 bits by a shift: for weights of one sign beyond -256 "
        ".. 255, and for those up to 0 from below -128, the shift is negative, which NumPy takes "
        "as 0; weights that all are the same -2^k are cut away",
        "scale weights and threshold down by the same power of two",
        "netx/utils.py, optimize_weight_bits; lava-dl issue 170",
    ),
    Rule(
        "weights-clipped",
        Level.ERROR,
        "weights that are clipped",
        "dense weights of both signs beyond -256 .. 254 are clipped, with a print only",
        "scale weights and threshold down by the same power of two",
        "netx/utils.py, optimize_weight_bits",
    ),
    Rule(
        "weights-changed",
        Level.ERROR,
        "negative weights whose lowest is a power of two",
        "the loader leaves them a bit too few: of -4 and -3 it makes -3 and -3; with 0 among them, "
        "what it runs is no integer",
        "scale weights and threshold so that the lowest is no power of two",
        "netx/utils.py, optimize_weight_bits; lava/utils/weightutils.py",
    ),
    Rule(
        "weights-all-zero",
        Level.ERROR,
        "a dense layer without any weight",
        "the loader stops with an OverflowError when it takes the logarithm of 0",
        "leave the layer out, or give it one weight",
        "netx/utils.py, optimize_weight_bits",
    ),
    Rule(
        "fractions",
        Level.ERROR,
        "numbers that are not whole",
        "the loader cuts them towards zero: 2.9 becomes 2, -0.9 becomes 0",
        "quantize before export: block.export_hdf5 of a quantized network",
        "netx/hdf5.py, astype(int)",
    ),
    Rule(
        "not-finite",
        Level.ERROR,
        "NaN or infinity",
        "cast to an integer it is an arbitrary number",
        "training diverged or the export is damaged; export an earlier state",
        "netx/hdf5.py, astype(int)",
    ),
    Rule(
        "conv-groups",
        Level.ERROR,
        "a convolution of 128 groups or more",
        "its groups are numbered in 8 bits: the stock process silently gives zeros",
        f"split the layer; {HERE}",
        "lava/proc/conv/process.py; utils/conv.py",
    ),
    Rule(
        "wide-geometry",
        Level.ERROR,
        "a kernel, stride, padding or dilation beyond 127",
        "the stock process keeps them in 8 bits: they wrap, or NumPy 2 raises",
        f"split the layer; {HERE}",
        "lava/proc/conv/process.py",
    ),
    Rule(
        "conv-wide-weights",
        Level.WARNING,
        "convolution weights beyond 8 bits",
        "the CPU models take any weight (5000 passes), a chip does not",
        "scale weights and threshold down by the same power of two",
        "lava/proc/conv/models.py: num_weight_bits is not used",
    ),
    Rule(
        "large-input",
        Level.WARNING,
        "a convolution on 128 or more rows or columns",
        "with NumPy 2 the stock process pads in 8 bits and raises OverflowError",
        f"NumPy 1.26; {HERE}",
        "lava/utils/conv.py; NEP 50",
    ),
    Rule(
        "message-bits",
        Level.ERROR,
        "messageBits, which the stock reader misreads",
        "it takes the number for a group; loading seems to succeed and building hangs",
        "remove it, and give input_message_bits to the loader",
        "netx/hdf5.py, NetDict.array_keys",
    ),
    Rule(
        "graded-spikes",
        Level.ERROR,
        "graded spikes that are sent as one bit",
        "the loader drops gradedSpike: synapses behind it take a spike for 1, whatever its size "
        "and sign; with num_message_bits = 0 even -1 becomes 1",
        "use an SDNN neuron, or a network of unary spikes",
        "netx/hdf5.py; lava/proc/dense/models.py: a_in.astype(bool)",
    ),
    Rule(
        "refractory",
        Level.ERROR,
        "a refractory delay that is dropped",
        "the loader builds neurons without one: they may fire at every step",
        "train with a refractory delay of 1",
        "netx/hdf5.py, get_neuron_params",
    ),
    Rule(
        "weight-exponent",
        Level.ERROR,
        "a weight exponent that is dropped",
        "the loader does not hand wgtExp on: currents are too small or too large by that factor",
        "multiply it into the weights and the bias",
        "netx/hdf5.py; lava issue 803",
    ),
    Rule(
        "never-fires",
        Level.ERROR,
        "a threshold beyond 17 bits",
        "the membrane is held to +-131071 weight units (24 bits of which 6 are a fraction), and "
        "fires above its threshold: this layer never does",
        "scale weights, bias and threshold down by the same power of two",
        "lava/proc/lif/models.py: signed_clamp(bits=24), vth << 6",
    ),
    Rule(
        "bad-threshold",
        Level.ERROR,
        "a threshold that is negative or wraps",
        "shifted by 6 it does not fit 32 bits, or the neuron fires at rest",
        "give one from 0 to 131071",
        "lava/proc/lif/models.py",
    ),
    Rule(
        "wide-bias",
        Level.ERROR,
        "a bias beyond 16 bits",
        "the mantissa is stored in int16 without a check: it wraps, or NumPy 2 raises",
        "scale weights, bias and threshold down by the same power of two",
        "lava/proc/lif/process.py, models.py: bias_mant int16",
    ),
    Rule(
        "bad-decay",
        Level.ERROR,
        "a decay outside 0 .. 4096",
        "decays are fractions of 4096; others make state grow without end or change sign",
        "check the export of the neuron",
        "lava/proc/lif/models.py",
    ),
    Rule(
        "long-delay",
        Level.ERROR,
        "a delay beyond 62 steps, or a negative one",
        "the loader clamps them all to 0 .. 62 where one is above, with a warning only, and passes "
        "negative ones on where none is",
        "retrain with delays of at most 62",
        "netx/hdf5.py, create_dense",
    ),
    Rule(
        "dropped-delay",
        Level.ERROR,
        "delays of a convolution, which are dropped",
        "only dense layers get delays: spikes silently arrive early",
        "use a dense layer, or train without delays there",
        "netx/hdf5.py, create_conv",
    ),
    Rule(
        "flatten",
        Level.ERROR,
        "a flatten that is missing or changes nothing",
        "weights lie in C, H, W order and spikes in W, H, C order: without a flatten in front, or "
        "with one before the first layer, they are not brought together",
        "put one flatten between the last convolution and the first dense layer",
        "netx/hdf5.py",
    ),
    Rule(
        "wraps",
        Level.WARNING,
        "sums that can pass 24 bits",
        "in the worst case a convolution's sum wraps modulo 24 bits and changes its sign",
        "scale weights and threshold down by the same power of two",
        "lava/proc/conv/models.py: signed_clamp replaced by a modulus",
    ),
    Rule(
        "input-numpy",
        Level.WARNING,
        "an input layer with neurons",
        "from NumPy 2.4 on the loader stops at it: int() of an array of one element",
        f"NumPy before 2.4; {HERE}",
        "netx/hdf5.py:280",
    ),
    Rule(
        "not-this-program",
        Level.ERROR,
        "not what this project wrote",
        "every command refuses it: the content does not describe a program, its hash says that it "
        "was changed, or it is of another version of the format",
        "convert again",
        "exports/netx/FORMAT.md",
    ),
    Rule(
        "range-not-proved",
        Level.ERROR,
        "a sum or state that may leave its register",
        "the worst case over all inputs does not fit, and the file does not ask for runs to watch "
        "for it",
        "convert with fewer weight bits or steps, or with watch_ranges=True",
        "toolchain/program/bounds.py",
    ),
    Rule(
        "certificate",
        Level.ERROR,
        "a range certificate that does not hold",
        "the bounds in the file are not those that its weights prove: whoever trusts them sizes "
        "registers wrongly",
        "convert again",
        "exports/netx/FORMAT.md",
    ),
    Rule(
        "ranges-watched",
        Level.WARNING,
        "ranges that runs have to watch",
        "the worst case over all inputs does not fit: runs here stop when a value leaves its "
        "register, a chip would not",
        "convert with fewer weight bits or steps",
        "toolchain/program/bounds.py",
    ),
    Rule(
        "strange-name",
        Level.WARNING,
        "a name with markup, or with characters that cannot be seen",
        "this project shows it as it stands; a page, terminal or script that does not escape it "
        "runs what it says",
        "rename the module and convert again; ask where the file comes from",
        "toolchain/text.py",
    ),
    Rule(
        "other-target",
        Level.WARNING,
        "numbers that the target does not hold",
        "the program is whole, but a parameter is beyond the limits of the profile it is "
        "compared with",
        "convert for this target: target=",
        "hw_models/profiles",
    ),
)
RULES = {rule.id: rule for rule in _ALL}
