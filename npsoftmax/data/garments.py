"""The embedded data set."""

from collections.abc import Callable

import numpy as np

from npsoftmax.data._drawing import SIDE, Floats, Measure, Sheet, cut, join, only, overlap, ring

_IMAGES_PER_SHEET = 256


def generate(num_samples: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(num_samples) % len(CLASSES)).astype(np.uint8)
    images = np.empty((num_samples, SIDE * SIDE), np.uint8)
    for label, draw in enumerate(_PATTERNS.values()):
        of_class = np.flatnonzero(y == label)
        for start in range(0, len(of_class), _IMAGES_PER_SHEET):
            chunk = of_class[start : start + _IMAGES_PER_SHEET]
            sheet = Sheet(len(chunk), rng)
            draw(sheet)
            images[chunk] = sheet.pixels()
    return images.T, y


def _sew_top(
    half: Sheet,
    shade: Floats,
    *,
    top: Measure,
    bottom: Measure,
    shoulder: Measure,
    waist: Measure,
    hem: Measure,
    sleeve: Measure,
    hang: Measure,
    armhole: Measure,
    cuff: Measure,
) -> Floats:
    """Sew two sleeves to a bodice and return the bodice; ``hang`` is their angle to the vertical."""
    bodice = half.panel(
        (top, 2.6),
        (top + 1.2, 0.75 * shoulder),
        (top + 3, shoulder),
        (top + 8, (shoulder + waist) / 2),
        (16, waist),
        (bottom, hem),
    )
    outwards, down = np.sin(hang), np.cos(hang)
    start = shoulder - armhole / 2 * down, top + 1.3 + armhole / 2 * outwards
    end = start[0] + sleeve * outwards, start[1] + sleeve * down
    sleeves = half.strip(start, end, armhole, cuff)
    half.paint(sleeves, 0.95 * shade)
    half.paint(overlap(sleeves, bodice - 0.6), 0.6 * shade)
    half.paint(bodice, shade)
    return bodice


def _cut_neck(sheet: Sheet, bodice: Floats, neck: Floats, shade: Floats) -> None:
    """Cut the neckline and bind it."""
    sheet.paint(overlap(bodice, neck - 1), shade * sheet.vary(0.75, 1.15))
    sheet.paint(overlap(bodice, neck), shade * sheet.vary(0, 0.4))


def _t_shirt(sheet: Sheet) -> None:
    """Boxy, with short wide sleeves and a generous neck; now and then a print, or a polo placket."""
    half, vary, chance = sheet.fold(), sheet.vary, sheet.chance
    shade = sheet.cloth(0.25, 0.8, rows=0.2, columns=0.05)
    top, waist, sleeve = vary(0.8, 3), vary(5.3, 7.5), vary(3, 11)
    bodice = _sew_top(
        half,
        shade,
        top=top,
        bottom=vary(24.5, 27),
        shoulder=waist + vary(0.3, 1.5),
        waist=waist,
        hem=waist + vary(-0.3, 0.7),
        sleeve=sleeve,
        hang=vary(0.65, 0.95) - 0.03 * sleeve,
        armhole=vary(4.5, 6.5),
        cuff=vary(3.5, 5.5),
    )
    round_neck = half.ellipse((0, top), vary(2, 3.8), vary(1, 3.5))
    v_neck = half.panel((top - 1, vary(2, 3)), (top + vary(3, 6), 0))
    _cut_neck(half, bodice, np.where(chance(0.3), v_neck, round_neck), shade)
    placket = half.panel((top, 0.4), (top + vary(4, 9), 0.4))
    half.paint(only(chance(0.2), placket), shade * vary(0.4, 0.9))
    badge = half.panel((vary(8, 11), vary(1, 5)), (vary(12, 19), vary(1, 5)))
    half.paint(only(chance(0.35), badge), vary(0.1, 1))


def _trouser(sheet: Sheet) -> None:
    half, vary = sheet.fold(), sheet.vary
    shade = sheet.cloth(columns=0.1)
    waist, hip = vary(3, 4.8), vary(4, 6)
    ankle, stance, crotch = vary(2.3, 4.2), vary(0, 1.8), vary(8, 11)
    legs = half.panel((vary(0.5, 3), waist), (8, hip), (27, stance + ankle + 0.8))
    gap = half.panel((crotch, 0), (crotch + 3, 0.3 + stance / 2), (28, stance + 0.8))
    half.paint(cut(legs, gap), shade)
    half.paint(overlap(legs, half.panel((0, 9), (3.5, 9))), shade * vary(0.6, 1.1))
    half.paint(half.strip((0, 3), (0, crotch), 0.5, 0.5), shade * 0.6)


def _pullover(sheet: Sheet) -> None:
    """Roomy long sleeves, ribbing at the hem; some have a zip or a print."""
    half, vary, chance = sheet.fold(), sheet.vary, sheet.chance
    shade = sheet.cloth(0.35, 0.9, rows=0.25, columns=0.05)
    top, waist = vary(0.8, 3.2), vary(5.5, 7.7)
    bodice = _sew_top(
        half,
        shade,
        top=top,
        bottom=vary(24, 27),
        shoulder=waist + vary(0.3, 1.3),
        waist=waist,
        hem=waist + vary(-0.8, 0.4),
        sleeve=vary(15, 21),
        hang=vary(0.16, 0.32),
        armhole=vary(4.5, 6.5),
        cuff=vary(2.5, 3.5),
    )
    half.paint(overlap(bodice, half.panel((24, 14), (28, 14))), shade * vary(0.7, 1))
    _cut_neck(half, bodice, half.ellipse((0, top), vary(1.8, 3.4), vary(1, 2.5)), shade)
    zipper = half.panel((top, 0.3), (top + vary(5, 30), 0.3))
    half.paint(only(chance(0.2), overlap(zipper, bodice)), shade * vary(0.3, 0.9))
    badge = half.panel((vary(8, 11), vary(1, 5)), (vary(12, 19), vary(1, 5)))
    half.paint(only(chance(0.2), badge), vary(0.1, 1))


def _dress(sheet: Sheet) -> None:
    half, vary = sheet.fold(), sheet.vary
    shade = sheet.cloth(rows=0.15, columns=0.1)
    waist = np.where(sheet.chance(0.25), vary(4.5, 6.5), vary(2.8, 5))
    bare = sheet.chance(0.4)
    top = vary(0.3, 2)
    bodice = _sew_top(
        half,
        shade,
        top=top,
        bottom=vary(26.5, 27.5),
        shoulder=waist + vary(0.0, 1.5),
        waist=waist,
        hem=waist + vary(0.2, 3.5),
        sleeve=np.where(bare, 0.1, vary(3, 20)),
        hang=vary(0.15, 0.5),
        armhole=vary(2.5, 5.5),
        cuff=vary(2, 3),
    )
    neck = half.ellipse((0, top), vary(1.5, 2.4), vary(1, 4))
    _cut_neck(half, bodice, neck, shade)
    belt = overlap(bodice, half.panel((vary(9, 11), 9), (12.5, 9)))
    half.paint(only(sheet.chance(0.3), belt), shade * vary(0.4, 1))


def _coat(sheet: Sheet) -> None:
    """Wide at the hem, long sleeves; open or zipped, with lapels and pockets."""
    half, vary, chance = sheet.fold(), sheet.vary, sheet.chance
    shade = sheet.cloth(0.25, 0.8, rows=0.1, columns=0.1)
    top, waist = vary(0.6, 2.7), vary(5.4, 7.5)
    bodice = _sew_top(
        half,
        shade,
        top=top,
        bottom=vary(25, 27.5),
        shoulder=waist + vary(0.3, 1.5),
        waist=waist,
        hem=waist + vary(-0.2, 1.5),
        sleeve=vary(19, 24),
        hang=vary(0.12, 0.25),
        armhole=vary(4.5, 6.5),
        cuff=vary(2.6, 3.8),
    )
    _cut_neck(half, bodice, half.ellipse((0, top), vary(1.5, 3), vary(0.7, 2)), shade)
    opening = half.strip((0, top), (0, 27), 0.6, vary(0.6, 2))
    half.paint(only(chance(0.55), opening), shade * vary(0.1, 0.9))
    lapels = half.strip((0.4, top + vary(3, 9)), (2.6, top), 1, 2.5)
    half.paint(only(chance(0.5), lapels), shade * vary(0.7, 1.2))
    pockets = half.strip((3, 19), (5, 19), 1, 1)
    half.paint(only(chance(0.5), pockets), shade * vary(0.5, 0.9))


def _shirt(sheet: Sheet) -> None:
    """Fitted, with sleeves of any length; most have a collar and buttons down the front."""
    half, vary, chance = sheet.fold(), sheet.vary, sheet.chance
    shade = sheet.cloth(0.4, 1.0, rows=0.25, columns=0.2)
    top, waist, sleeve, buttoned = vary(0.8, 3), vary(5, 7), vary(5, 19), chance(0.5)
    bodice = _sew_top(
        half,
        shade,
        top=top,
        bottom=vary(24.7, 27.2),
        shoulder=waist + vary(0.3, 1.5),
        waist=waist,
        hem=waist + vary(-0.2, 1.0),
        sleeve=sleeve,
        hang=vary(0.65, 0.9) - 0.03 * sleeve,
        armhole=vary(4.3, 6.3),
        cuff=vary(3.2, 5.2),
    )
    neck = half.ellipse((0, top), vary(1.8, 3.3), vary(1, 3.2))
    _cut_neck(half, bodice, neck, shade)
    placket = half.panel((top, 0.3), (27, 0.3))
    half.paint(only(buttoned, placket), shade * vary(0.7, 1))
    for height in (9, 13, 17, 21):
        half.paint(only(buttoned, half.ellipse((0, height + top), 0.6, 0.6)), shade * vary(0.6, 1))
    collar = half.strip((0.2, top + 2.5), (2.4, top), 1, 2)
    half.paint(only(buttoned, collar), shade * vary(0.7, 1.2))


def _sandal(sheet: Sheet) -> None:
    vary, chance = sheet.vary, sheet.chance
    shade = sheet.cloth()
    high, backed = chance(0.35), chance(0.6)
    lift, instep = np.where(high, vary(5, 10), vary(0, 2)), vary(5.5, 8)
    ball, heel = vary(-4, -1), vary(8, 9.5)
    ground = 18.5 + lift / 2
    bed = sheet.drape((ball, ground), (heel, ground - lift))
    foot = bed.drape((-12, -2), (-9, -3.5), (-3, -4.5), (4, -instep), (12, -7)).panel(
        (0, 12.3), (20, 12.3)
    )
    straps = join(
        only(
            chance(0.85) | ~backed,
            bed.strip((-vary(6, 10), 0), (-vary(3, 6), -7), vary(1.5, 8), vary(1.5, 5)),
        ),
        only(
            backed | chance(0.5),
            bed.strip((vary(-4, 1), 0), (vary(1, 4), -8), vary(1.5, 6), vary(1.5, 4)),
        ),
        only(backed, bed.strip((1, -vary(5, 7)), (12, -vary(4, 6)), vary(1, 2), vary(1, 3))),
        only(backed, bed.strip((11.5, 0), (11, -7), vary(1, 10), vary(1, 3))),
    )
    sheet.paint(overlap(foot, overlap(straps, bed.y)), shade * vary(0.8, 1.2))
    sheet.paint(
        bed.panel((0, 12.8), (vary(1, 3), 12.4)), np.where(chance(0.5), shade, vary(0.3, 1))
    )
    stiletto = sheet.strip(
        (heel + 2, ground - lift), (heel + 2.5, ground + 1.5), vary(1.5, 6), vary(1, 4)
    )
    sheet.paint(only(high, stiletto), shade * 0.9)


def _shoe(sheet, shade, height, heel, tread):
    vary = sheet.vary
    floor = sheet.drape((0, 14 + height / 2))
    ground = floor.drape((-12.5, -1.5), (-9, 0), (0, 0), (5, -heel * 0.7), (12, -heel - 0.3))
    throat, toe = vary(-2, 1.5), vary(3.5, 5.5)
    upper = floor.drape(
        (-13, -2),
        (-12, 1 - toe),
        (-10, -toe),
        (-5, -1.5 - toe),
        (throat, -9.5),
        (throat + 1, -12.5),
    )
    foot = overlap(upper.panel((0, 12.6), (25, 12.6)), -height - floor.y)
    ankle = (12.5 - throat) / 2
    leg = floor.fold(throat + ankle)
    shaft = leg.panel((-height, vary(5, 6.5)), (-7.5, ankle), (0, ankle))
    collar = leg.ellipse((0, -height), ankle * 0.6, vary(0.3, 2))
    body = cut(overlap(join(foot, shaft), ground.y), collar)
    sheet.paint(body, shade)
    sheet.paint(ground.panel((-vary(0.8, 3), 12.8), (0.2, 12.8)), tread)
    laced = sheet.chance(0.6)
    for h in (4, 5.5, 7, 8.5):
        lace = floor.strip((throat + 4.5 - h, -h), (throat + 7 - h, 1 - h), 0.6, 0.6)
        sheet.paint(only(laced & (h < height - 1), lace), shade * vary(0.3, 0.9))
    return floor, leg, body


def _sneaker(sheet: Sheet) -> None:
    vary, chance = sheet.vary, sheet.chance
    shade = sheet.cloth()
    height = np.where(chance(0.15), vary(9, 16), vary(7, 9.5))
    floor, _, body = _shoe(sheet, shade, height, 0.0, vary(0.3, 1))
    stripe = floor.strip(
        (vary(-4, -1), -3), (vary(3, 8), -vary(4, 6)), vary(0.5, 1.5), vary(0.5, 2.5)
    )
    sheet.paint(only(chance(0.7), overlap(body, stripe)), vary(0.2, 1))


def _bag(sheet: Sheet) -> None:
    half, vary = sheet.fold(), sheet.vary
    shade = sheet.cloth(0.25, 0.8)
    w = vary(7, 12)
    top = vary(6, 13)
    bottom = vary(19.5, 26.5)
    body = half.panel((top, w * vary(0.8, 1)), (bottom - 1.5, w), (bottom, w - 1.5))
    handle = ring(half.ellipse((0, top), vary(3.5, 7), vary(2, 9)), vary(1, 1.8))
    strap = half.strip((w - 1, top + 1), (0, vary(0, 3)), 1.1, 1.1)
    half.paint(only(sheet.chance(0.8), np.where(sheet.chance(0.3), strap, handle)), shade * 0.8)
    half.paint(body, shade)
    flap = half.panel((top, w), (top + vary(3, 7), w * vary(0.8, 1)))
    half.paint(overlap(body, only(sheet.chance(0.5), ring(flap, 0.8))), shade * 0.6)
    half.paint(half.ellipse((0, top + vary(3, 6)), vary(0.8, 1.6), vary(0.8, 1.6)), vary(0.2, 1))


def _ankle_boot(sheet: Sheet) -> None:
    vary, chance = sheet.vary, sheet.chance
    shade = sheet.cloth()
    heel, height = np.where(chance(0.5), 0, vary(1, 4)), vary(11, 22)
    tread = np.where(chance(0.5), vary(0.3, 1), shade * vary(0.3, 1))
    floor, leg, body = _shoe(sheet, shade, height, heel, tread)
    sheet.paint(
        only(heel > 0, floor.strip((9.3, -heel), (9.6, 0.5), 6, vary(2, 6))), shade * vary(0.3, 1)
    )
    gore = leg.strip((0, -height), (0, -7), vary(2, 4), 1)
    sheet.paint(only(chance(0.5), overlap(body, gore)), shade * vary(0.6, 1.1))


_PATTERNS: dict[str, Callable[[Sheet], None]] = {
    "T-shirt/top": _t_shirt,
    "Trouser": _trouser,
    "Pullover": _pullover,
    "Dress": _dress,
    "Coat": _coat,
    "Sandal": _sandal,
    "Shirt": _shirt,
    "Sneaker": _sneaker,
    "Bag": _bag,
    "Ankle boot": _ankle_boot,
}
CLASSES = tuple(_PATTERNS)
