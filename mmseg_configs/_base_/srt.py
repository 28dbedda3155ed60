# What every config here needs: the registered types. Put it last among the bases, and beside it
#
#   model = dict(backbone=dict(type="SRTWrapper", wraps="<type of the base>", srt=dict(...)))
#
# Everything else of the backbone is inherited. Checkpoints of the base load as they are, training
# is untouched, and the ensemble runs in eval mode. Keywords of srt=dict(...), with their defaults:
#
#   level=None             largest |translation| in pixels; alone: all (2 * level + 1) ** 2 views.
#                          level=3 is the paper's grid of 49 views; 0 switches SRT off
#   views=None             'phases' = 2 x 2 phases of the patch (the default without level),
#                          'phases:m' = m x m, an int = best design of so many views, 'grid',
#                          or a list of (dy, dx)
#   statistic='mean'       'median' needs the memory of all views
#   dispersion=False       keep the spread over views: srt_plugins.dispersion(model)
#   layer=None             block to ensemble at instead of the outputs: an index or a module path
#   outputs=None           indices of the outputs to ensemble; the others come from the centre view
#   stride=None            pixels per output cell, a divisor of the patch: finer feature maps
#   smooth=None            odd kernel length over tokens
#   padding='replicate'    or 'reflect', 'zeros': pixels outside the image
#   view_batch='auto'      views per forward
#
# From a command line: --cfg-options model.backbone.srt.level=3
# Costs below are backbone forwards per image (or window) against one; heads run once.
custom_imports = dict(imports=["srt_plugins.mmseg"], allow_failed_imports=False)
