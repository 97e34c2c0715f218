"""The table of sensors: how their files are named, their bands in delivery order, wavelengths, MTF gains.

A sensor is one row of `SENSORS`. docs/sensors.md shows the table; tests/test_sensors.py walks it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import InputError
from .bands import band_name

DEFAULT_GAIN = 0.3
"""MTF gain at Nyquist of an MS band where none is published."""

DEFAULT_PAN_GAIN = 0.15
"""MTF gain at Nyquist of a PAN where none is published."""

TOOLBOX = "Vivone et al. 2015"
FUSED = "pansharpened already"


@dataclass(frozen=True)
class Names:
    """How the files of a product are called, and a made-up delivery of it.

    `pattern` matches the whole name of a file, without its ending and its tile (`_R1C1`), in any case of letters; one
    with a slash in it matches the name with the folder before. The role is the group that takes part: `pan` or `ms`,
    or one of `left`, whose text says why such a file is not fused. `band` tells which of `bands` a file holds; without
    it the file holds all of the sensor's. `key` and `name` are filled in from the groups: files with the same key are
    of one scene, files of the same `unit` of one delivery.
    `pan_codes`: words among `bands` whose files together are the PAN. `more`: bands of files that are fused only where
    they are named, by the text of their group. `joins`: groups of files on a grid of their own that join a pair of PAN
    and MS, with the sensor that they are of.
    `pan`, `ms` and `others` are examples: the PAN, the files of the MS in the order in which they are fused, and what
    is left over beside them.
    """

    product: str
    pattern: str
    pan: str
    ms: tuple[str, ...]
    others: tuple[str, ...] = ()
    key: str = "{scene}"
    name: str = ""
    unit: str = ""
    bands: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    left: Mapping[str, str] = field(default_factory=lambda: {"fused": FUSED}, hash=False)
    pan_codes: tuple[str, ...] = ()
    more: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    joins: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Sensor:
    """A sensor: `waves` has its MS bands in their usual order with the middle of each in micrometres.

    `published`: MTF gains of the bands at Nyquist, from `source`; 0.3 each where there are none, and 0.15 of the PAN.
    `ratio`: of its products; 0 where they have no common one. `patterns` recognise it in metadata, `aliases` are other
    spellings of its name, `also` gains of bands that it has beside those, `subsets` other band orders and counts in
    which its products are delivered, `names` those of its files.
    """

    name: str
    waves: Mapping[str, float] = field(hash=False)
    ratio: float
    names: tuple[Names, ...] = ()
    patterns: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    subsets: tuple[tuple[str, ...], ...] = ()
    published: tuple[float, ...] = ()
    pan_gain: float = DEFAULT_PAN_GAIN
    source: str = "generic"
    also: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def bands(self) -> tuple[str, ...]:
        return tuple(self.waves)

    @property
    def gains(self) -> tuple[float, ...]:
        return self.published or (DEFAULT_GAIN,) * len(self.waves)

    def gains_of(self, names: Sequence[str | None], chosen: Sequence[int] | None = None) -> tuple[float, ...]:
        """MTF gains of all bands of these names, or of those `chosen` (from 0): by name where known, else by position.

        Raises InputError if the sensor has no product with that many bands.
        """
        chosen = range(len(names)) if chosen is None else chosen
        if not self.bands:
            return (DEFAULT_GAIN,) * len(chosen)
        by_name = {**dict(zip(self.bands, self.gains, strict=True)), **self.also}
        known = [band_name(names[i]) for i in chosen]
        if all(n in by_name for n in known):
            return tuple(by_name[n] for n in known if n is not None)
        usual = self.usual_names(len(names), chosen)
        if usual is not None:
            return tuple(by_name.get(n, DEFAULT_GAIN) for n in usual)
        counts = sorted({len(self.bands), *(len(s) for s in self.subsets)})
        raise InputError(
            f"{self.name} has {' or '.join(map(str, counts))} MS bands, the input has {len(chosen)}; "
            "choose them with --bidx and --fit-bands bidx, or use --sensor generic"
        )

    def has(self, names: Sequence[str | None]) -> bool:
        """Whether there are products of the sensor with all these bands."""
        try:
            self.gains_of(names)
        except InputError:
            return False
        return True

    def usual_names(self, count: int, chosen: Sequence[int]) -> tuple[str, ...] | None:
        """Standard names of the `chosen` bands (from 0) of `count`, in the order of the sensor's products. The product
        has `count` bands, or else as many as are chosen; None if there is no such product."""
        for size, places in ((count, chosen), (len(chosen), range(len(chosen)))):
            for order in (self.bands, *self.subsets):
                if len(order) == size:
                    return tuple(order[i] for i in places)
        return None


# Names that several sensors share -----------------------------------------------------------------------------------

BGRN = ("blue", "green", "red", "nir")
RGBN = ("red", "green", "blue", "nir")
BGR, RGB = BGRN[:3], RGBN[:3]
WV8 = ("coastal", "blue", "green", "yellow", "red", "red_edge", "nir", "nir2")


def each(codes: str, names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Files of single bands by the words, in capitals, that tell them apart."""
    return {code.upper(): (name,) for code, name in zip(codes.split(), names, strict=True)}


_MAXAR = Names(
    "Maxar",
    r"(?P<time>\d\d[A-Z]{3}\d{8})-(?:(?P<pan>P)|(?P<ms>M)|(?P<fused>S)|(?P<swir>A))(?P<level>\d[A-Z]{2})[^-]*-"
    r"(?P<order>.+)",
    "012345678010_01_P001_PAN/10JUN12053804-P2AS-012345678010_01_P001.TIF",
    ("012345678010_01_P001_MUL/10JUN12053803-M2AS-012345678010_01_P001.TIF",),
    ("012345678010_01_P001_PSH/10JUN12053804-S2AS-012345678010_01_P001.TIF",),
    key="{level}-{order}",
    name="{time}-{order}",
    joins={"swir": "worldview-3-swir"},
)
_GEOEYE = Names(
    "GeoEye",
    r"(?P<scene>po_\d+)_(?:(?P<pan>pan)|(?P<ms>bgrn|rgb|(?P<band>blu|grn|red|nir)))_(?P<part>\d+)",
    "po_37836_pan_0000000.tif",
    tuple(f"po_37836_{band}_0000000.tif" for band in ("blu", "grn", "red", "nir")),
    key="{scene}_{part}",
    bands=each("blu grn red nir", BGRN),
)


def _airbus(satellites: str, example: str) -> Names:
    """Files of Airbus since DIMAP V2; a DIM_*.XML lists the tiles of one."""
    return Names(
        "Airbus",
        rf"(?:IMG|DIM)_(?P<sat>{satellites})_(?:(?P<pan>P)|(?P<ms>MS)|(?P<fused>PMS))(?:-\w+)?_(?P<time>\d{{14}})\d*_"
        r"(?P<level>[^_]+)(?P<rest>.*)",
        f"IMG_{example}_P_001/IMG_{example}_P_201202250025329_ORT_5847_R1C1.TIF",
        (f"IMG_{example}_MS_002/IMG_{example}_MS_201202250025329_ORT_5848_R1C1.TIF",),
        (f"IMG_{example}_PMS_003/IMG_{example}_PMS_201202250025329_ORT_5849_R1C1.TIF",),
        key="{sat}_{time}_{level}",
        unit="{level}{rest}",
    )


def _landsat(
    numbers: str, bands: str, names: tuple[str, ...], odd: str, thermal: Mapping[str, str], example: str, pan="B8"
) -> Names:
    """Files of Landsat. MS are the bands of 30 m that the PAN's spectrum lies among, and the short-wave ones."""
    codes = "".join(bands.split())
    role = (
        rf"(?P<pan>{pan})|(?P<ms>(?:SR_)?B(?P<band>[{codes}]))" if pan else rf"(?P<alone>(?:SR_)?B(?P<band>[{codes}]))"
    )
    return Names(
        "Landsat",
        rf"(?P<scene>L[CEOTM]0?(?P<number>[{numbers}]).*?)_(?:{role}|(?:SR_)?B(?P<odd>{odd})"
        r"|(?P<side>(?:GM|QA|BQA|SR|ST|S[AZ]A|V[AZ]A|ANG|pixel|radsat|sensor|solar)(?:_\w+)?))",
        f"{example}/{example}_{pan}.TIF" if pan else "",
        tuple(f"{example}/{example}_B{code}.TIF" for code in codes) if pan else (),
        tuple(f"{example}/{example}_{word}.TIF" for word in (*(() if pan else ("B1", "B2")), "QA_PIXEL", "SZA"))
        + (f"{example}/gap_mask/{example}_GM_{pan or 'B1'}.TIF",),
        bands=each(bands, names),
        more={code: (name,) for code, name in thermal.items()},
        left={
            "odd": "band {odd} of Landsat {number} is not fused",
            "side": "a mask, an angle or the like, no band",
            "alone": "Landsat {number} has no PAN",
        },
    )


def _gaofen(satellites: str, pan: str, ms: str, example: str) -> Names:
    return Names(
        "GaoFen",
        rf"(?P<scene>(?:{satellites})_.+?)[-_]?(?:(?P<pan>(?:BWD)?PAN)|(?P<ms>(?:BWD)?(?:MUX|MSS?))"
        r"|(?P<stereo>FWD(?:PAN)?))(?P<part>\d?)",
        f"{example}/{example}-{pan}.tiff",
        (f"{example}/{example}-{ms}.tiff",),
        (f"{example}/{example}-FWDPAN.tiff",) if pan == "BWDPAN" else (),
        key="{scene}-{part}",
        left={"stereo": "the forward view of a stereo pair"},
    )


def _resampled(size: float, pixel: float) -> float:
    """The MTF gain at the Nyquist frequency of `pixel` metres of a band of `size` metres that was resampled to it."""
    return float(f"{DEFAULT_GAIN ** ((size / pixel) ** 2):.3g}")


_TIRS, _ETM = {"10": "thermal", "11": "thermal2"}, {"6_VCID_1": "thermal", "6_VCID_2": "thermal2"}

_NADIR = r"(?:(?P<pan>NAD)|(?P<ms>MUX)|(?P<stereo>FWD|BWD))"
_STEREO = {"stereo": "a view of a stereo triplet, not the one at nadir"}
_INPE = r"_\d{8}_\d{3}_\d{3}_L\w+?"
_L8, _L7, _L5 = (
    f"L{letter}0{number}_L1TP_180031_20200814_20200822_02_T1" for letter, number in (("C", 8), ("E", 7), ("T", 5))
)
_PNEO = "PNEO4_202207110043428_{}_ORT_PWOI_000028295_1_10_F_1"
_K3 = "K3_20200613102356_05088_09391167_L1G"
_SV1 = "SV1-01_20180423_L2A0000387658_1012100148730001_01"
_JL1 = "JL1GF02A_PMS1_20230618093553_200166837_102_0025_001_L1"
_DE2 = "L1C_000000_20150530T183126_20150530T183129_DE2_5119_FC14"
_EO1, _ALI = "EO1A1800312002204110KZ", "03 04 05 06 07 09 10"
_SKY = "20200814_162132_ssc4_u0001"
_S2 = "T31UFU_20200814T105031"
_TRIPLE = "L1_20191107021947_001FFCVI_002_0120200811001001_001"

_LANDSAT_8 = {"blue": 0.482, "green": 0.561, "red": 0.655, "nir": 0.865, "swir1": 1.609, "swir2": 2.201}
_LANDSAT_7 = {"blue": 0.485, "green": 0.56, "red": 0.66, "nir": 0.835, "swir1": 1.65, "swir2": 2.22}
_CHINA = {"blue": 0.485, "green": 0.555, "red": 0.66, "nir": 0.83}
_WORLDVIEW = {
    "coastal": 0.425, "blue": 0.48, "green": 0.545, "yellow": 0.605, "red": 0.66, "red_edge": 0.725, "nir": 0.833,
    "nir2": 0.95,
}  # fmt: skip
_WV3_SWIR = {
    "swir1": 1.21, "swir2": 1.57, "swir3": 1.66, "swir4": 1.73, "swir5": 2.165, "swir6": 2.205, "swir7": 2.26,
    "swir8": 2.33,
}  # fmt: skip
_SENTINEL_2 = {
    "blue": 0.492, "green": 0.56, "red": 0.665, "red_edge": 0.704, "red_edge2": 0.74, "red_edge3": 0.783, "nir": 0.833,
    "nir_narrow": 0.865, "swir1": 1.614, "swir2": 2.202,
}  # fmt: skip
_S2_FINE, _S2_COARSE = ("B02", "B03", "B04", "B08"), ("B05", "B06", "B07", "B8A", "B11", "B12")
_S2_NAMES = ("red_edge", "red_edge2", "red_edge3", "nir_narrow", "swir1", "swir2")
_WV4 = {"blue": 0.48, "green": 0.545, "red": 0.673, "nir": 0.85}
_THREE_OR_FOUR = (RGBN, BGR)
_VISIBLE = (BGRN, RGBN, BGR, RGB)

# The table ----------------------------------------------------------------------------------------------------------

GENERIC = Sensor("generic", {}, 4.0)

ROWS = (
    GENERIC,
    Sensor(
        "quickbird", {"blue": 0.485, "green": 0.56, "red": 0.66, "nir": 0.83}, 4, (_MAXAR,),
        patterns=(r"quick ?bird", r"^qb0?2?$"), aliases=("qb", "qb2"), subsets=_THREE_OR_FOUR,
        published=(0.34, 0.32, 0.30, 0.22), pan_gain=0.15, source=TOOLBOX,
    ),
    Sensor(
        "ikonos", {"blue": 0.48, "green": 0.551, "red": 0.665, "nir": 0.805}, 4, (_GEOEYE,),
        patterns=(r"ikonos",), aliases=("ik", "ikonos2"), subsets=_THREE_OR_FOUR,
        published=(0.26, 0.28, 0.29, 0.28), pan_gain=0.17, source=TOOLBOX,
    ),
    Sensor(
        "geoeye-1", _WV4, 4, (_MAXAR, _GEOEYE), patterns=(r"geo ?eye", r"^ge0?1$"), aliases=("ge1", "geoeye"),
        subsets=_THREE_OR_FOUR, published=(0.23,) * 4, pan_gain=0.16, source=TOOLBOX,
    ),
    Sensor(
        "worldview-2", _WORLDVIEW, 4, (_MAXAR,), patterns=(r"world ?view 0?2", r"^wv0?2$"), aliases=("wv2",),
        subsets=_VISIBLE, published=(0.35,) * 7 + (0.27,), pan_gain=0.11, source=TOOLBOX,
    ),
    Sensor(
        "worldview-3", _WORLDVIEW, 4, (_MAXAR,), patterns=(r"world ?view 0?3", r"^wv0?3$"), aliases=("wv3",),
        subsets=_VISIBLE,
        published=(0.325, 0.355, 0.360, 0.350, 0.365, 0.360, 0.335, 0.315), pan_gain=0.14, source=TOOLBOX,
    ),
    Sensor("worldview-3-swir", _WV3_SWIR, 0, aliases=("wv3swir",), pan_gain=0.14),
    Sensor(
        "worldview-4", _WV4, 4, (_MAXAR,), patterns=(r"world ?view 0?4", r"^wv0?4$"), aliases=("wv4", "geoeye2"),
        subsets=_THREE_OR_FOUR, published=(0.23,) * 4, pan_gain=0.16, source=TOOLBOX,
    ),
    Sensor(
        "pleiades-neo",
        {"red": 0.655, "green": 0.56, "blue": 0.485, "nir": 0.825, "red_edge": 0.725, "coastal": 0.425}, 4,
        (
            Names(
                "Pleiades Neo",
                r"(?:IMG|DIM)_(?P<sat>PNEO\d)_(?P<time>\d{14})\d*_(?:(?P<pan>PAN)|(?P<ms>MS(?:-FS)?)|"
                r"(?P<fused>PMS(?:-FS)?))_(?P<level>[^_]+)_(?P<rest>.+?)(?:_(?P<band>P|RGB|NED|MS\w*))?",
                f"IMG_10_PNEO4_PAN/IMG_{_PNEO.format('PAN')}_P_R1C1.TIF",
                tuple(f"IMG_10_PNEO4_MS-FS/IMG_{_PNEO.format('MS-FS')}_{b}_R1C1.TIF" for b in ("RGB", "NED")),
                (f"IMG_11_PNEO4_PMS-FS/IMG_{_PNEO.format('PMS-FS')}_RGB_R1C1.TIF",),
                key="{sat}_{time}_{level}",
                unit="{rest}",
                bands={"RGB": RGB, "NED": ("nir", "red_edge", "coastal")},
            ),
        ),
        patterns=(r"pl[eé]iades ?neo", r"^pneo"), aliases=("pneo", "pleiadesneo"),
        subsets=(RGBN, RGB, ("coastal", *BGR, "red_edge", "nir"), BGRN),
    ),
    Sensor(
        "pleiades", {"red": 0.66, "green": 0.55, "blue": 0.49, "nir": 0.85}, 4,
        (_airbus(r"PHR\d[A-Z]?", "PHR1A"),), patterns=(r"pl[eé]iades", r"^phr"),
        aliases=("phr", "phr1a", "phr1b", "pleiades1a"), subsets=(BGRN, RGB),
    ),
    Sensor(
        "spot-6", {"red": 0.66, "green": 0.56, "blue": 0.49, "nir": 0.825}, 4,
        (_airbus(r"SPOT\d", "SPOT7"),), patterns=(r"spot ?0?[67]",), aliases=("spot6", "spot7", "spot67"),
        subsets=(BGRN, RGB),
    ),
    Sensor(
        "kompsat-3", {"blue": 0.485, "green": 0.56, "red": 0.66, "nir": 0.83}, 4,
        (
            Names(
                "KOMPSAT",
                r"(?P<scene>K3A?_.+_L\w+?)_(?:(?P<pan>P|PAN)|(?P<ms>M|MS|MUL|(?P<band>[BGRN]))|(?P<fused>P[BGRN]|PS\w*))",
                f"{_K3}/{_K3}_P.tif",
                tuple(f"{_K3}/{_K3}_{band}.tif" for band in "BGRN"),
                (f"{_K3}/{_K3}_PB.tif",),
                bands=each("B G R N", BGRN),
            ),
        ),
        patterns=(r"kompsat ?0?3", r"arirang ?0?3", r"^k3a?$"), aliases=("kompsat3a", "k3", "k3a", "arirang3"),
        subsets=_THREE_OR_FOUR,
    ),
    Sensor(
        "cbers-4a", {"blue": 0.485, "green": 0.555, "red": 0.66, "nir": 0.83}, 4,
        (
            Names(
                "CBERS",
                rf"(?P<scene>CBERS_?4A_WPM{_INPE})_BAND(?:(?P<pan>0)|(?P<ms>(?P<band>[1-4])))",
                "CBERS_4A_WPM_20200730_209_139_L4_BAND0.tif",
                tuple(f"CBERS_4A_WPM_20200730_209_139_L4_BAND{band}.tif" for band in range(1, 5)),
                bands=each("1 2 3 4", BGRN),
            ),
        ),
        patterns=(r"cbers ?0?4 ?a", r"^wpm$"), aliases=("cbers4a", "wpm"), subsets=_THREE_OR_FOUR,
    ),
    Sensor(
        "cbers-4", {"green": 0.555, "red": 0.66, "nir": 0.83}, 2,
        (
            Names(
                "CBERS",
                r"CBERS_?4_(?:(?P<pan>PAN5M)|(?P<ms>PAN10M))_(?P<scene>\d{8}_\d{3}_\d{3}_L\w+?)_BAND(?P<band>\d)",
                "CBERS_4_PAN5M_20170425_153_114_L4/CBERS_4_PAN5M_20170425_153_114_L4_BAND1.tif",
                tuple(
                    f"CBERS_4_PAN10M_20170425_153_114_L4/CBERS_4_PAN10M_20170425_153_114_L4_BAND{band}.tif"
                    for band in (2, 3, 4)
                ),
                key="CBERS_4_{scene}",
                bands=each("2 3 4", BGRN[1:]),
            ),
            Names(
                "CBERS",
                rf"(?P<scene>CBERS_?4A?_MUX{_INPE})_BAND(?P<ms>(?P<band>[5-8]))",
                "",
                tuple(f"CBERS_4_MUX_20170528_090_084_L4_BAND{band}.tif" for band in (5, 6, 7, 8)),
                bands=each("5 6 7 8", BGRN),
            ),
        ),
        patterns=(r"cbers ?0?4",), aliases=("cbers4",), subsets=(BGRN,),
    ),
    Sensor(
        "amazonia-1", {"blue": 0.485, "green": 0.555, "red": 0.66, "nir": 0.83}, 0,
        (
            Names(
                "INPE",
                rf"(?P<scene>(?:AMAZONIA_?1|CBERS_?4A?)_A?WFI{_INPE})_(?P<alone>BAND(?P<band>\d\d?))",
                "", (), tuple(f"AMAZONIA_1_WFI_20220811_036_018_L4_BAND{band}.tif" for band in range(1, 5)),
                bands=each("1 2 3 4", BGRN) | each("13 14 15 16", BGRN),
                left={"alone": "WFI cameras have no PAN"},
            ),
        ),
        patterns=(r"amazonia",), aliases=("amazonia",), subsets=_THREE_OR_FOUR,
    ),
    Sensor(
        "gaofen-1", _CHINA, 4, (_gaofen("GF1[A-D]?", "PAN2", "MSS2", "GF1_PMS2_E116.9_N39.0_20150212_L1A0000647768"),),
        patterns=(r"gao ?fen 0?1", r"^gf0?1"), aliases=("gf1", "gf1b", "gf1c", "gf1d"), subsets=_THREE_OR_FOUR,
    ),
    Sensor(
        "gaofen-2", _CHINA, 4, (_gaofen("GF2", "PAN1", "MSS1", "GF2_PMS1_E116.9_N39.0_20150212_L1A0000647768"),),
        patterns=(r"gao ?fen 0?2", r"^gf0?2"), aliases=("gf2",), subsets=_THREE_OR_FOUR,
    ),
    Sensor(
        "gaofen-6", {"blue": 0.485, "green": 0.56, "red": 0.66, "nir": 0.83}, 4,
        (_gaofen("GF6", "PAN", "MUX", "GF6_PMS_E104.9_N35.8_20201107_L1A1120048697"),),
        patterns=(r"gao ?fen 0?6", r"^gf0?6"), aliases=("gf6",), subsets=_THREE_OR_FOUR,
    ),
    Sensor(
        "gaofen-7", _CHINA, 4, (_gaofen("GF7", "BWDPAN", "BWDMUX", "GF7_DLC_E11.4_N11.4_20220622_L1A0000852849"),),
        patterns=(r"gao ?fen 0?7", r"^gf0?7"), aliases=("gf7",), subsets=_THREE_OR_FOUR,
    ),
    Sensor(
        "ziyuan-3", _CHINA, 0,
        (
            Names(
                "ZY-3",
                rf"(?P<scene>ZY30?\d?_[A-Z]+_[EW][\d.]+_[NS][\d.]+_\d{{8}}_L\w+)-{_NADIR}",
                "ZY302_TMS_E122.0_N29.9_20210219_L1A0000840534-NAD.tiff",
                ("ZY302_TMS_E122.0_N29.9_20210219_L1A0000840534-MUX.tiff",),
                tuple(f"ZY302_TMS_E122.0_N29.9_20210219_L1A0000840534-{view}.tiff" for view in ("FWD", "BWD")),
                left=_STEREO,
            ),
            Names(
                "ZY-3",
                rf"(?P<sat>ZY30?\d?)_{_NADIR}_(?P<place>[EW][\d.]+_[NS][\d.]+_\d{{8}})_L\w+",
                "ZY3_NAD_E116.5_N39.9_20130530_L1A0001186464.tiff",
                ("ZY3_MUX_E116.5_N39.9_20130530_L1A0001186468.tiff",),
                ("ZY3_FWD_E116.5_N39.9_20130530_L1A0001186466.tiff",),
                key="{sat}_{place}",
                left=_STEREO,
            ),
            Names(
                "ZY-3",
                rf"(?P<sat>zy30\da?)_{_NADIR}_(?P<orbit>\d+_\d+_\d{{8}})\d*_.+",
                "zy302a_nad_015524_005124_20190317112435_01_sec_0004_1904027581.tif",
                ("zy302a_mux_015524_005124_20190317112440_01_sec_0004_1904027580.tif",),
                ("zy302a_bwd_015524_005124_20190317112440_01_sec_0004_1904027582.tif",),
                key="{sat}_{orbit}",
                left=_STEREO,
            ),
        ),
        patterns=(r"zi ?yuan 0?3", r"^zy 0?3"), aliases=("zy3", "zy301", "zy302", "zy303"), subsets=_THREE_OR_FOUR,
    ),
    Sensor(
        "superview-1", _CHINA, 4,
        (
            Names(
                "SuperView",
                r"(?P<scene>SV[12]-0\d_.+?)[-_]?(?:(?P<pan>PAN)|(?P<ms>MUX|MSS?)|(?P<fused>PSH))",
                f"{_SV1}/{_SV1}-PAN.tiff",
                (f"{_SV1}/{_SV1}-MUX.tiff",),
            ),
        ),
        patterns=(r"super ?view", r"gao ?jing", r"^sv ?0?[12]"),
        aliases=("sv1", "sv2", "superview", "superview2", "gaojing1"), subsets=_THREE_OR_FOUR,
    ),
    Sensor(
        "jilin-1", {"blue": 0.485, "green": 0.555, "red": 0.66, "nir": 0.83}, 4,
        (
            Names(
                "Jilin-1",
                r"(?P<scene>JL1\w*?_PMS\w*)_(?:(?P<pan>PAN)|(?P<ms>MSS?))",
                f"{_JL1}/{_JL1}_PAN.tif",
                (f"{_JL1}/{_JL1}_MSS.tif",),
            ),
        ),
        patterns=(r"ji ?lin", r"^jl ?1"), aliases=("jl1", "jilin"), subsets=_THREE_OR_FOUR,
    ),
    Sensor(
        "triplesat", {"blue": 0.475, "green": 0.55, "red": 0.635, "nir": 0.835}, 4,
        (
            Names(
                "TripleSat",
                r"(?P<sat>TRIPLESAT_\d)_(?:(?P<pan>PAN)|(?P<ms>MS)|(?P<fused>PSH|PMS))_(?P<scene>L\w+)",
                f"TRIPLESAT_2_PAN_{_TRIPLE}/TRIPLESAT_2_PAN_{_TRIPLE}.tif",
                (f"TRIPLESAT_2_MS_{_TRIPLE}/TRIPLESAT_2_MS_{_TRIPLE}.tif",),
                (f"TRIPLESAT_2_PSH_{_TRIPLE}/TRIPLESAT_2_PSH_{_TRIPLE}.tif",),
                key="{sat}_{scene}",
            ),
        ),
        patterns=(r"triple ?sat", r"bei ?jing ?2", r"dmc ?3"), aliases=("dmc3", "beijing2", "bj2"),
        subsets=_THREE_OR_FOUR,
    ),
    Sensor(
        "perusat-1", {"red": 0.655, "green": 0.56, "blue": 0.485, "nir": 0.825}, 4,
        (
            Names(
                "PeruSAT",
                r"(?:IMG|DIM)_(?P<sat>PER\d)_(?P<time>\d{14})_(?P<level>[A-Z]+)_"
                r"(?:(?P<pan>P)|(?P<ms>MS)|(?P<fused>PMS))_(?P<rest>.+)",
                "IMG_PER1_20190217152904_ORT_P_000659.TIF",
                ("IMG_PER1_20190217152904_ORT_MS_000658.TIF",),
                key="{sat}_{time}_{level}",
                unit="{rest}",
            ),
        ),
        patterns=(r"peru ?sat", r"^per ?0?1"), aliases=("per1", "perusat"), subsets=(BGRN, RGB, BGR),
    ),
    Sensor(
        "deimos-2", {"nir": 0.831, "red": 0.669, "green": 0.566, "blue": 0.496}, 4,
        (
            Names(
                "Deimos-2",
                r"DE2_(?:(?P<pan>PAN)|(?P<ms>MS4)|(?P<fused>PS[H34]))_(?P<scene>L\w+)",
                f"DE2_PM4_{_DE2}/DE2_PAN_{_DE2}.tif",
                (f"DE2_PM4_{_DE2}/DE2_MS4_{_DE2}.tif",),
                key="DE2_{scene}",
            ),
        ),
        patterns=(r"deimos ?0?2", r"geo ?sat 0?2", r"^de0?2"), aliases=("deimos2", "geosat2", "de2"),
        subsets=(BGRN, RGB, BGR),
    ),
    Sensor(
        "cartosat-2", {"blue": 0.475, "green": 0.565, "red": 0.65, "nir": 0.83}, 0,
        (
            Names(
                "Cartosat",
                r"(?P<scene>(?:CARTOSAT|C)[-_]?0?2[A-FS]?(?:[-_][^/]*?)?)[-_](?:(?P<pan>PAN?)|(?P<ms>MX))(?P<rest>[^/]*)/"
                r"BAND(?P<band>[1-4])?",
                "C2S_20200105_PAN/BAND1.tif",
                tuple(f"C2S_20200105_MX/BAND{band}.tif" for band in range(1, 5)),
                key="{scene}{rest}",
                bands=each("1 2 3 4", BGRN),
            ),
        ),
        patterns=(r"cartosat ?0?2",), aliases=("cartosat2s", "cartosat2e", "c2s", "cartosat"), subsets=_THREE_OR_FOUR,
    ),
    Sensor(
        "eo-1", {"blue": 0.483, "green": 0.565, "red": 0.66, "nir": 0.79, "nir2": 0.868, "swir1": 1.65, "swir2": 2.215},
        3,
        (
            Names(
                "EO-1",
                r"(?P<scene>EO1A\w+?)_B(?:(?P<pan>01)|(?P<ms>(?P<band>0[3-79]|10))|(?P<odd>02|08))_(?P<level>L1\w+)",
                f"{_EO1}_B01_L1GST.TIF",
                tuple(f"{_EO1}_B{code}_L1GST.TIF" for code in _ALI.split()),
                tuple(f"{_EO1}_B{code}_L1GST.TIF" for code in ("02", "08")),
                key="{scene}_{level}",
                bands=each(_ALI, (*BGRN, "nir2", "swir1", "swir2")),
                left={"odd": "band {odd} of ALI is not fused"},
            ),
        ),
        patterns=(r"^eo ?1$", r"^ali$"), aliases=("ali", "eo1ali"), subsets=_VISIBLE,
    ),
    Sensor(
        "skysat", {"blue": 0.483, "green": 0.555, "red": 0.65, "nir": 0.82}, 0,
        (
            Names(
                "SkySat",
                r"(?P<scene>\d{8}_\d{6}_ssc\d+(?:d\d)?\w*?)(?P<level>_basic|_ortho)?_(?:(?P<pan>panchromatic)|(?P<ms>analytic)|"
                r"(?P<fused>pansharpened)|(?P<picture>visual))(?P<kind>_dn|_sr|_toar)?(?P<mask>_udm2?)?",
                f"{_SKY}_panchromatic.tif",
                (f"{_SKY}_analytic.tif",),
                (f"{_SKY}_analytic_udm.tif", f"{_SKY}_pansharpened.tif", f"{_SKY}_visual.tif"),
                key="{scene}{level}{kind}",
                left={"mask": "looks like a mask", "fused": FUSED, "picture": "a picture to look at"},
            ),
        ),
        patterns=(r"sky ?sat", r"^ssc ?\d"), aliases=("ssc",), subsets=_THREE_OR_FOUR,
    ),
    Sensor(
        "landsat-8", _LANDSAT_8, 2, (_landsat("89", "2 3 4 5 6 7", tuple(_LANDSAT_8), r"1|9|1[01]", _TIRS, _L8),),
        patterns=(r"landsat ?0?[89]", r"^lc0?[89]", r"\boli\b"), aliases=("l8", "l9", "landsat9", "lc8", "lc9", "oli"),
        subsets=_VISIBLE, also={name: _resampled(100, 30) for name in _TIRS.values()},
    ),
    Sensor(
        "landsat-7", _LANDSAT_7, 2, (_landsat("7", "1 2 3 4 5 7", tuple(_LANDSAT_7), r"6\w*", _ETM, _L7),),
        patterns=(r"landsat ?0?7", r"^le0?7", r"\betm\b"), aliases=("l7", "le7", "etm"), subsets=_VISIBLE,
        also={name: _resampled(60, 30) for name in _ETM.values()},
    ),
    Sensor(
        "landsat-5", _LANDSAT_7, 0, (_landsat("45", "1 2 3 4 5 7", tuple(_LANDSAT_7), "6", {}, _L5, pan=""),),
        patterns=(r"landsat ?0?[45]", r"^lt0?[45]"), aliases=("l4", "l5", "landsat4", "lt4", "lt5", "tm"),
        subsets=_VISIBLE,
    ),
    Sensor(
        "sentinel-2", _SENTINEL_2, 2,
        (
            Names(
                "Sentinel-2",
                r"(?P<scene>(?:L\w+_)?T\d\d[A-Z]{3}_\d{8}T\d{6})_(?:(?=B(?:0[2-8]|8A|1[12])(?:_|$))(?P<band>B\d\w)"
                r"(?:(?P<pan>(?<=B0[2348])(?:_10m|$))|(?P<ms>(?<!B0[2348])(?:_20m|$))|(?P<copy>_\d0m))"
                r"|(?P<coarse>B01|B09|B10)(?:_\d0m)?|(?P<side>TCI|AOT|WVP|SCL|CLD|SNW|PVI)(?:_\d0m)?)",
                f"{_S2}_B02_10m.jp2",
                tuple(f"{_S2}_{code}_10m.jp2" for code in _S2_FINE[1:])
                + tuple(f"{_S2}_{code}_20m.jp2" for code in _S2_COARSE),
                tuple(f"{_S2}_{code}.jp2" for code in ("B02_20m", "B01_60m", "TCI_10m", "SCL_20m")),
                bands=each(" ".join(_S2_FINE), BGRN) | each(" ".join(_S2_COARSE), _S2_NAMES),
                left={
                    "copy": "a coarser copy of a band",
                    "coarse": "a band of 60 m, which is fused only where fuse is given it",
                    "side": "a picture, a mask or a map, no band",
                },
                pan_codes=_S2_FINE,
                more={"B01": ("coastal",), "B09": ("nir2",)},
            ),
        ),
        patterns=(r"sentinel ?0?2",), aliases=("s2", "s2a", "s2b", "s2c"), subsets=(*_VISIBLE, _S2_NAMES),
        also={"coastal": DEFAULT_GAIN, "nir2": DEFAULT_GAIN},
    ),
)  # fmt: skip
"""The first row whose pattern fits wins: pleiades-neo stands before pleiades, whose pattern fits its names, too."""

SENSORS: dict[str, Sensor] = {row.name: row for row in ROWS}
