r"""Fixed maps from samples to features, on which a linear model is accurate.

A linear model of pixels cannot tell a bent line from a straight one. On fixed features it can, and
its objective stays convex: the features are learned from images without labels, and never change
afterwards. :class:`Patches` compares each place of an image with a few dozen patches of training
images, and sums the similarities over parts of the image. :class:`RandomFourier` approximates a
Gaussian kernel on top of other features. :class:`Chain` applies one map after the other.
:class:`Standardise` gives the columns of a table the same unit, :class:`Tfidf` weighs words.

**Patches.** A patch :math:`p` of :math:`q \times q` pixels is normalised, which removes brightness
and contrast, and whitened, which removes what neighbouring pixels have in common:

.. math:: u = \frac{p - \bar p}{\sigma}, \qquad
    \sigma = \sqrt{\tfrac{1}{q^2} \|p - \bar p\|^2 + \varepsilon^2}, \qquad
    v = V (u - \mu), \qquad V = (C + r I)^{-1/2},

where :math:`\mu` and :math:`C` are the mean and the covariance of the normalised patches of the
training images; :math:`\varepsilon` keeps noise in even areas small. The filters :math:`d_i` are
whitened patches themselves, drawn at random and of length 1. Their responses above a threshold are
pooled with smooth windows :math:`w_c`, and the square root lessens the weight of what occurs often:

.. math:: a_{ci} = \sqrt{\sum_p w_c(p) \, \max(0, d_i \cdot v_p - t)}

**What the normalisation costs.** With :math:`f_i = V d_i`, made to sum to 0 over the patch (which
changes nothing, since :math:`u` does), and :math:`b_i = -f_i \cdot \mu - t`,

.. math:: \max(0, f_i \cdot u + b_i) = \frac{1}{\sigma} \max(0, f_i \cdot p + b_i \sigma)

because :math:`\sigma > 0`. So patches need not be normalised: :math:`\sigma` is one more pixel of
the patch, whose weight is :math:`b_i`, and :math:`1 / \sigma` joins the windows. The filter bank is
one product, the pooling another.

At the end, the mean over training images is subtracted, and the features are divided by one number,
so that their mean square length is 1. A penalty then means the same for every map.

References
----------
Coates, Lee, Ng, "An analysis of single-layer networks in unsupervised feature learning", AISTATS
2011: whitened patches, thresholds and pooling. Coates, Ng, "The importance of encoding versus
training with sparse coding and vector quantization", ICML 2011: random patches serve as well as
learned ones. Hyvärinen, Hurri, Hoyer, "Natural Image Statistics", 2009, chapter 5: whitening.
Rahimi, Recht, "Random features for large-scale kernel machines", NIPS 2007: the Fourier features.
"""

from npsoftmax.features.columns import Standardise, Tfidf
from npsoftmax.features.maps import Chain, FeatureMap, RandomFourier
from npsoftmax.features.packing import digest, pack, unpack
from npsoftmax.features.patches import Patches

__all__ = [
    "Chain",
    "FeatureMap",
    "Patches",
    "RandomFourier",
    "Standardise",
    "Tfidf",
    "digest",
    "pack",
    "unpack",
]
