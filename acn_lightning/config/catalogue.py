"""The options of a config, with types, defaults and descriptions.

Made by docs/make_reference.py from the classes themselves. Do not edit it: change the classes.
"""

from typing import Any, Literal

from acn_lightning.config.keys import Described
from acn_lightning.utils.registry import Option

SECTIONS = {
    'budget': Described('Limits for what an experiment leaves open: networks whose `channels` are null, and `trainer.max_epochs: null`.', {
        'minutes': Option(float, 6.0, 'approximate training time, estimated by timing a few steps. Other programs on the machine slow these down.'),
        'channels': Option(list[int], [8, 16, 32, 64], 'channel counts of the decoder to choose from, smallest first. The encoder gets twice as many.'),
    }),
    'data': Described('An image data set in which every example carries (index, image, label).', {
        'source': Option(str, 'digits', 'where images come from: "digits" (scikit-learn\'s, no download), "mnist", "fashion_mnist", "cifar10", "celeba", "imagenet", "idx" (any files in MNIST\'s format), "folder" (image files), "npz", "huggingface" (data sets of that form) or "arrays" (given to `acn_lightning.fit`); or package.module:Name of a `Source` of your own. In Python, also a `Source` object.'),
        'download': Option(bool, True, 'whether to download missing files of a published data set.'),
        'binarisation': Option(str, 'static', '"none"; "threshold" at half of white; "static", one fixed draw for each image; "dynamic", a fresh draw whenever an image is trained on. Held-out images use the static draw even with "dynamic", so that results are comparable.'),
        'validation': Option(float | int, 0.1, 'how many training images to hold out for validation: a fraction below 1 or a number of images. 0 for none.'),
        'cache': Option(str, 'auto', 'where decoded images are kept: "memory"; "disk", decoded once into a file that all processes map; or "auto", on disk if they would take more than a quarter of the memory. Sources that read their arrays whole (mnist, npz, ...) use memory.'),
        'cache_folder': Option(str | None, None, "the folder of these files; null for the user's cache folder."),
        'subset': Option(int | None, None, 'how many of the training images to use at all, including those held out. The seed decides which. null for all.'),
        'batch_size': Option(int, 64, 'examples per step and process.'),
        'augment': Option(str, 'none', 'how to transform, at random, the copy of each image that the encoder sees while training: "affine" (rotation, scale, shift, shear: for digits and the like), "colour" (crop, mirroring, colour changes, blur: for photographs) or "none". The decoder always describes the original image, and results are of original images.'),
        'augment_strength': Option(float, 1.0, "factor on the sizes of the recipe's transforms."),
        'augment_transforms': Option(dict[str, Any] | None, None, 'sizes of single transforms, `{rotation: 30, flip: 0.5}`. affine has rotation, scale, shift, shear and flip; colour has crop, flip, brightness, contrast, saturation, hue, grey and blur.'),
    }),
    'model': Described('Associative Compression Network (arXiv 1804.02476).', {
        'rate_weight': Option(float, 1.0, 'weight of the rate in the loss (the beta of Higgins et al., ICLR 2017). Where pixels cost a thousand nats, the few nats of a code hardly count; a larger weight pulls the codes of neighbours together. Logged costs are never weighted.'),
        'warmup_epochs': Option(float, 0.0, 'number of epochs over which that weight grows from 0 (Bowman et al., arXiv 1511.06349), a remedy for empty codes in VAEs.'),
        'free_nats': Option(float, 0.0, 'rate in nats per image below which the rate costs nothing in the loss ("free bits", Kingma et al., arXiv 1606.04934, with the whole code as one group); another remedy for empty codes.'),
    }),
    'neighbours': Described('Finds the stored codes nearest to a query, in Euclidean distance.', {
        'k': Option(int, 5, 'number of neighbours per query, K.'),
        'factory': Option(str, 'auto', '"auto" compares all codes with all while that is quick ("Flat", exact). Above 20,000 codes (a million on a GPU) it searches the nearest of 4 sqrt(N) lists ("IVF"), unless that proves no quicker. Otherwise a FAISS factory string, such as "Flat", "IVF256,Flat" or "HNSW32".'),
        'recall': Option(float, 0.95, 'lowest acceptable recall of an approximate index.'),
        'effort': Option(int | None, None, 'number of lists that an IVF searches, or of candidates that an HNSW holds. null starts at 8 at each rebuild, and doubles until the recall is reached.'),
        'float16': Option(bool, False, 'with "auto", whether the index stores its copy of the codes in 16 bits.'),
        'memory_mb': Option(int, 128, 'memory that a rebuild may hold at once besides codes, index and table, in MiB. On a GPU, FAISS gets half of it as scratch memory.'),
        'device': Option(str, 'auto', '"auto" searches on the codes\' GPU if FAISS supports it, else on the CPU; "cpu" and "gpu" force one.'),
    }),
    'refresh': Described('Rebuilds the FAISS index from the stored posterior means at each epoch boundary and writes the table that the next epoch draws neighbours from.', {
        'encode': Option(bool, True, 'whether to encode all training images again at each boundary with the current weights, in place of the codes stored during the epoch. This takes a forward pass of the encoder over the data. Without it codes in the table, and in checkpoints, are up to an epoch old, and of transformed copies.'),
    }),
    'finetune': Described('Fine-tunes an ACN, some or all of whose weights come from elsewhere (`ACN.pretrained`).', {
        'checkpoint': Option(str | None, None, 'checkpoint to take the initial weights from; null starts from random ones.'),
        'freeze': Option(list[str], [], "parts that do not train: encoder, shape (the codes' mean and variance), prior, decoder, or a submodule of one by its name in the module, such as decoder.network."),
        'unfreeze_epoch': Option(int | None, None, 'epoch from which the frozen parts train; null for never.'),
        'rate': Option(float, 1.0, 'factor of `optimizer.learning_rate` for weights that come from elsewhere.'),
    }),
    'average': Described('Keeps an exponential moving average of the weights (Polyak and Juditsky 1992), which is often better than the weights of any step. Training itself does not change: with or without an average, the same steps are taken.', {
        'decay': Option(float, 0.0, 'share of the average that each step keeps, such as 0.999, which then covers about the last 1,000 steps; 0 for no average.'),
    }),
    'early_stopping': Described("Lightning's `EarlyStopping`, for whole epochs: ends the run once the cost that `best.ckpt` is chosen by has not fallen for some epochs.", {
        'patience': Option(int | None, None, 'epochs with a validation in a row after which the run ends, if none of them has a lower cost; null for never.'),
        'min_delta': Option(float, 0.0, 'nats per image by which the cost has to be lower.'),
    }),
    'checkpoints': Described('Keeps the newest state of a run as `last.ckpt`, and the ones before as `last-1.ckpt`, ...', {
        'keep': Option(int, 2, 'number of checkpoints to keep. If one is damaged, the one before it remains.'),
        'every_n_steps': Option(int, 0, 'number of steps between additional saves within an epoch; 0 for none.'),
    }),
    'evaluation': Described("Gathers the test images' codes from all ranks and computes their costs (`bounds`). Measures codes, and the representations that they compete with, by `classifiers.measure`.", {
        'posterior_samples': Option(int, 1, 'number of z drawn for each test image; costs are means over them.'),
        'unconditional_codes': Option(int, 1024, "number of terms in the unconditional cost's sum for each image. More terms take longer and lower the bound."),
        'tour_seconds': Option(float, 0.0, 'seconds to search for a tour shorter than the greedy one, with a solver (`pip install fast-tsp`); the cheaper of the two is used. 0 for the greedy tour alone.'),
        'linear': Option(str, 'all', 'what to fit classifiers and clusters on: "all" for codes, pixels and principal components of the pixels; "codes" for codes alone, as the other two do not depend on the model; or "none". On a million images the fits take hours and all memory.'),
    }),
    'dashboard': Described('Logs what scalars do not show to W&B and TensorBoard, on rank 0. Everything is logged against the global step, as in Lightning. What fails after the test is a warning: the run has ended by then.', {
        'checkpoints': Option(bool, True, 'whether W&B gets the checkpoints.'),
        'explorer': Option(int, 2000, 'number of test images in the explorer; 0 for no explorer. It needs plotly, and is skipped without it.'),
    }),
    'pictures': Described('Draws pictures as PNG files in a folder, and for each logger that takes images.', {
        'every_n_epochs': Option(int, 5, 'number of epochs between drawings during training; 0 for never. After a test they are always drawn.'),
        'images': Option(int, 10, 'number of held-out images, spread evenly over all: files are in the order of their classes.'),
        'samples': Option(int, 32, 'number of samples; 0 for none.'),
        'points': Option(int, 2000, 'largest number of points in the projection; 0 for no projection.'),
        'noise': Option(bool, False, "whether to draw each pixel of a decoder's image even if pixels are independent given the code; otherwise their means are shown. An autoregressive decoder always draws them."),
    }),
    'probe': Described('Every few epochs, encodes training and held-out images again, trains classifiers on the former and tests them on the latter.', {
        'every_n_epochs': Option(int, 5, 'number of epochs between probes; 0 for never.'),
        'images': Option(int, 10000, 'largest number of training images, and of held-out ones; each class gets its share.'),
        'linear': Option(bool, True, 'whether to fit classifiers and clusters; if false, only neighbours are measured.'),
    }),
    'warnings': Described("Looks for faults at the end of an epoch and of the test, and says what to do about each: see `docs/troubleshooting.md`. After a minute on a CPU it also looks whether the run has its cores to itself. Each kind is reported once in a run, however often it is resumed: as a warning, in the run's `warnings.json`, as an alert in W&B and as a text in TensorBoard.", {
        'every_n_epochs': Option(int, 1, 'number of epochs between looks; 0 for never.'),
    }),
    'sampling': Described("A grid of images, drawn with torch's global random generator.", {
        'kind': Option(str, 'reconstructions', '"reconstructions": an image, then draws from its code, a new sample of it in each column; "daydream": an image, then repeatedly a code drawn from the prior given the last image\'s code, and the image decoded from it, which is encoded in turn (arXiv 1804.02476, figure 1). Where the mean of a black and white image is shown, a drawn one is encoded; "unconditional": images of codes drawn from the prior given stored codes, and no test images; "interpolation": an image, then what is decoded along the line from its code to the code of another test image, which fills the last column.'),
        'rows': Option(int, 8, 'number of rows.'),
        'columns': Option(int, 8, 'number of columns, including those of test images.'),
        'noise': Option(bool, False, 'whether to draw each pixel even if pixels are independent given the code; otherwise their means are shown. An autoregressive decoder always draws its pixels.'),
    }),
}

KINDS: dict[str, dict[str, Described]] = {
    'data': {
        'arrays': Described('Images that are given in Python, to `acn_lightning.fit`.', {
            'image_size': Option(Any, None, '[height, width] to resize images to; one number for squares. null keeps their size; auto does too if all share one of at most 32 x 32, else it is 32.'),
            'channels': Option(int | None, None, '1 for grey or 3 for RGB; null takes 1 if all images are grey, else 3.'),
            'background': Option(str, 'white', 'colour behind transparent pixels: a name or `rgb(240,240,240)`.'),
            'bits': Option(int | None, None, 'how many of 16 bits grey values use, from 8 to 16; null takes as many as the brightest pixel of all 16-bit images needs, of 8, 10, 12, 14 and 16.'),
            'unreadable': Option(str, 'stop', '"stop" at a file that cannot be read, or "skip" it; for lists of paths.'),
            'max_pixels': Option(int, 89478485, 'images of more pixels cannot be read; at most 178956970.'),
        }),
        'celeba': Described('CelebA, aligned and cropped, see `read_celeba`.', {
            'root': Option(str | None, None, 'the folder of the published files.'),
            'image_size': Option(Any, None, '[height, width] to resize images to; one number for squares; auto is 32.'),
            'attribute': Option(str | None, None, 'attribute to use as the label; null for "Smiling".'),
        }),
        'cifar10': Described('CIFAR-10, see `read_cifar10`.', {
            'root': Option(str | None, None, 'the folder of the published files; what is missing there can be downloaded.'),
        }),
        'digits': Described("scikit-learn's handwritten digits, which need no download.", {}),
        'fashion_mnist': Described('Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv 1708.07747).', {
            'root': Option(str | None, None, 'the folder of the published files; what is missing there can be downloaded.'),
        }),
        'folder': Described('A folder of image files, with a sub-folder for each class or none. Folders `train` and `test` are the splits; without them, a fixed tenth of the images becomes the test split.', {
            'root': Option(str | None, None, 'the folder.'),
            'image_size': Option(Any, None, '[height, width] to resize images to; one number for squares. null keeps their size; auto does too if all share one of at most 32 x 32, else it is 32.'),
            'channels': Option(int | None, None, '1 for grey or 3 for RGB; null takes 1 if all images are grey, else 3.'),
            'background': Option(str, 'white', 'colour behind transparent pixels: a name or `rgb(240,240,240)`.'),
            'bits': Option(int | None, None, 'how many of 16 bits grey values use, from 8 to 16; null takes as many as the brightest pixel of all 16-bit images needs, of 8, 10, 12, 14 and 16.'),
            'unreadable': Option(str, 'stop', '"stop" at a file that cannot be read, or "skip" it.'),
            'max_pixels': Option(int, 89478485, 'images of more pixels cannot be read; at most 178956970.'),
        }),
        'huggingface': Described("A data set in one of the formats of Hugging Face's `datasets`. No code of a data set is run.", {
            'path': Option(str | None, None, 'a folder of Parquet files, of images, or that `save_to_disk` wrote; a .parquet or .arrow file; or the name of a data set on the hub, OWNER/NAME.'),
            'subset_name': Option(str | None, None, "which of the data set's configurations; null for its only one."),
            'split': Option(str, 'train', 'the training split.'),
            'test_split': Option(str | None, None, 'the test split; null takes "test", else "validation", else a fixed tenth of `split`.'),
            'image': Option(str | None, None, 'the column of the images; null takes the only one.'),
            'label': Option(str | None, None, 'the column of the labels; null takes the only column of classes, else "label"; "none" takes none.'),
            'image_size': Option(Any, None, '[height, width] to resize images to; one number for squares. null keeps their size; auto does too if all share one of at most 32 x 32, else it is 32.'),
            'channels': Option(int | None, None, '1 for grey or 3 for RGB; null takes 1 if all images are grey, else 3.'),
            'background': Option(str, 'white', 'colour behind transparent pixels: a name or `rgb(240,240,240)`.'),
            'bits': Option(int | None, None, 'how many of 16 bits grey values use, from 8 to 16; null takes as many as the brightest pixel of all 16-bit images needs, of 8, 10, 12, 14 and 16.'),
            'max_pixels': Option(int, 89478485, 'images of more pixels cannot be read; at most 178956970.'),
        }),
        'idx': Described("Files in MNIST's format, see `read_idx`.", {
            'root': Option(str | None, None, 'the folder of the files.'),
        }),
        'imagenet': Described("ImageNet's ILSVRC2012: the npz files of the downsampled version, or JPEG files.", {
            'root': Option(str | None, None, 'the folder of train_data_batch_1.npz ... and val_data.npz, or of train/WNID/*.JPEG and val/WNID/*.JPEG, also as Kaggle has them. JPEG files need `data.image_size`.'),
            'image_size': Option(Any, None, '[height, width] to resize JPEG files to; one number for squares; auto is 32. null for the downsampled version, whose images have one size.'),
        }),
        'mnist': Described('MNIST (LeCun, Cortes and Burges).', {
            'root': Option(str | None, None, 'the folder of the published files; what is missing there can be downloaded.'),
        }),
        'npz': Described('NumPy arrays in one file, see `read_npz`.', {
            'root': Option(str | None, None, 'the .npz file.'),
        }),
    },
    'model.encoder': {
        'conv': Described('VGG-like body (Simonyan and Zisserman, arXiv 1409.1556), then one linear layer to the mean. The body has pairs of 3 x 3 convolutions; between pairs the resolution halves and the channels double, until a side is 4 or less.', {
            'channels': Option(int | None, 32, 'width of the first stage, a multiple of 8. null lets `acn fit` choose: see `budget`.'),
        }),
        'import': Described('A feature network from your own code or another package, then one linear layer to the mean, which is always trained here.', {
            'path': Option(str, '', 'package.module:Name of an `nn.Module`, or of a function that returns one. The network maps images (B, C, H, W) in [-1, 1] to features (B, ...). Modules in the current folder are found too.'),
            'arguments': Option(dict[str, Any] | None, None, 'keyword arguments to construct it with.'),
            'weights': Option(str | None, None, 'a file of weights for it, see `read_weights`. Tensors that do not fit keep their initial values, with a warning.'),
            'float32': Option(bool, True, 'compute features in 32 bits, whatever the precision. With 16 bits, which are faster on a GPU, a network that starts from random weights may never learn; one with trained weights does not need 32.'),
        }),
        'none': Described('An uninformative code: q(z|x) = N(0, I) for every image. With a standard normal prior it costs nothing, which leaves the decoder alone: a model without codes.', {}),
    },
    'model.shape': {
        'free': Described("No constraint: codes are the encoder's means.", {}),
        'sphere': Described('All codes lie on a sphere around the origin.', {
            'radius': Option(float, 0.8, 'radius of the sphere, divided by sqrt(D).'),
        }),
        'white': Described('Every dimension of the codes has mean 0 and the same fixed variance, and a penalty pushes dimensions to be uncorrelated, so that the covariance is that of white noise.', {
            'scale': Option(float, 1.5, "standard deviation of each dimension, in units of the posterior's noise. A dimension then holds at most log(1 + scale^2) / 2 nats."),
            'decorrelation': Option(float, 16.0, 'weight of the penalty, divided by D; 0 for none.'),
        }),
    },
    'model.prior': {
        'mixture': Described('A mixture of Gaussians per dimension. Its parameters come from a network of tanh layers with skip connections (arXiv 1804.02476): the input feeds every layer, every layer the output.', {
            'mixtures': Option(int, 8, 'Gaussians per dimension, M.'),
            'width': Option(int, 512, 'units of a hidden layer.'),
            'depth': Option(int, 3, 'number of hidden layers.'),
        }),
        'standard_normal': Described('p(z|c) = N(0, I) for every c, which makes the model a plain VAE.', {}),
    },
    'model.decoder': {
        'conv': Described("Pixels independent given z: upsamples z to a feature map, then one convolution gives the likelihood's parameters.", {
            'channels': Option(int | None, 32, 'of the feature map, a multiple of 8. null lets `acn fit` choose: see `budget`.'),
        }),
        'pixelcnn': Described('r(x|z) = prod_i r(x_i | x_1, ..., x_(i-1), z) by a gated PixelCNN (arXiv 1606.05328).', {
            'channels': Option(int | None, 32, 'of each stack, a multiple of 8. null lets `acn fit` choose: see `budget`.'),
            'layers': Option(int, 6, 'number of layers.'),
            'kernel': Option(int, 5, 'side of the convolutions, odd.'),
            'first_kernel': Option(int, 7, "side of the first layer's convolutions, odd. They see pixels, so a wide one costs little."),
            'conditioning': Option(str, 'map', '"map" upsamples z to a feature map, which tells each position something different; "vector" tells every position the same; "none" ignores z: a PixelCNN without codes.'),
            'map_channels': Option(int, 16, 'channels of that feature map, a multiple of 8.'),
        }),
    },
    'model.likelihood': {
        'bernoulli': Described('Black or white pixels, for binarised images.', {}),
        'categorical': Described("A probability for each of a channel's 256 values, channels in order: learnt tables give what an earlier channel's value adds to a later channel's logits.", {}),
        'logistic_mixture': Described('A mixture of discretised logistics, channels in order (arXiv 1701.05517): for colour and grey images, where neighbouring values are alike.', {
            'mixtures': Option(int, 10, 'number of logistics per pixel, M.'),
        }),
    },
    'optimizer': {
        'adam': Described('torch.optim.Adam', {
            'betas': Option(tuple, (0.9, 0.999), ''),
            'eps': Option(float, 1e-08, ''),
            'weight_decay': Option(float, 0, ''),
            'amsgrad': Option(bool, False, ''),
            'foreach': Option(bool | None, None, ''),
            'maximize': Option(bool, False, ''),
            'capturable': Option(bool, False, ''),
            'differentiable': Option(bool, False, ''),
            'fused': Option(bool | None, None, ''),
            'decoupled_weight_decay': Option(bool, False, ''),
        }),
        'adamw': Described('torch.optim.AdamW', {
            'betas': Option(tuple, (0.9, 0.999), ''),
            'eps': Option(float, 1e-08, ''),
            'weight_decay': Option(float, 0.01, ''),
            'amsgrad': Option(bool, False, ''),
            'maximize': Option(bool, False, ''),
            'foreach': Option(bool | None, None, ''),
            'capturable': Option(bool, False, ''),
            'differentiable': Option(bool, False, ''),
            'fused': Option(bool | None, None, ''),
        }),
        'sgd': Described('torch.optim.SGD', {
            'momentum': Option(float, 0, ''),
            'dampening': Option(float, 0, ''),
            'weight_decay': Option(float, 0, ''),
            'nesterov': Option(bool, False, ''),
            'maximize': Option(bool, False, ''),
            'foreach': Option(bool | None, None, ''),
            'differentiable': Option(bool, False, ''),
            'fused': Option(bool | None, None, ''),
        }),
    },
    'schedule': {
        'constant': Described('The same rate for all steps.', {
            'warmup_steps': Option(int, 0, ''),
        }),
        'cosine': Described('Decays to 0 at the end of the run, along half a cosine (Loshchilov and Hutter, arXiv 1608.03983).', {
            'warmup_steps': Option(int, 0, ''),
        }),
    },
}

TRAINER = {
    'accelerator': Option(str, 'auto', ''),
    'strategy': Option(str, 'auto', ''),
    'devices': Option(list[int] | str | int, 'auto', ''),
    'num_nodes': Option(int, 1, ''),
    'precision': Option(Literal[64, 32, 16] | Literal['transformer-engine', 'transformer-engine-float16', '16-true', '16-mixed', 'bf16-true', 'bf16-mixed', '32-true', '64-true'] | Literal['64', '32', '16', 'bf16'] | None, None, ''),
    'fast_dev_run': Option(int | bool, False, ''),
    'max_epochs': Option(int | None, None, ''),
    'min_epochs': Option(int | None, None, ''),
    'max_steps': Option(int, -1, ''),
    'min_steps': Option(int | None, None, ''),
    'max_time': Option(str | dict[str, int] | None, None, ''),
    'limit_train_batches': Option(float | int | None, None, ''),
    'limit_val_batches': Option(float | int | None, None, ''),
    'limit_test_batches': Option(float | int | None, None, ''),
    'limit_predict_batches': Option(float | int | None, None, ''),
    'overfit_batches': Option(int | float, 0.0, ''),
    'val_check_interval': Option(int | float | str | dict[str, int] | None, None, ''),
    'check_val_every_n_epoch': Option(int | None, 1, ''),
    'num_sanity_val_steps': Option(int | None, None, ''),
    'log_every_n_steps': Option(int | None, None, ''),
    'enable_checkpointing': Option(bool | None, None, ''),
    'enable_progress_bar': Option(bool | None, None, ''),
    'enable_model_summary': Option(bool | None, None, ''),
    'accumulate_grad_batches': Option(int, 1, ''),
    'gradient_clip_val': Option(float | int | None, None, ''),
    'gradient_clip_algorithm': Option(str | None, None, ''),
    'deterministic': Option(bool | Literal['warn'] | None, None, ''),
    'benchmark': Option(bool | None, None, ''),
    'inference_mode': Option(bool, True, ''),
    'use_distributed_sampler': Option(bool, True, ''),
    'profiler': Option(str | None, None, ''),
    'detect_anomaly': Option(bool, False, ''),
    'barebones': Option(bool, False, ''),
    'sync_batchnorm': Option(bool, False, ''),
    'reload_dataloaders_every_n_epochs': Option(int, 0, ''),
    'default_root_dir': Option(str | None, None, ''),
    'enable_autolog_hparams': Option(bool, True, ''),
    'model_registry': Option(str | None, None, ''),
}

VERSIONS = {'lightning': '2.6.6', 'torch': '2.13.0'}
