"""Pictures wherever they lie: in folders, under URLs, in archives, in tables, in videos, in memory.

    find.find_pictures(source, split) → FoundFiles → open_pictures → PictureStore → PictureSamples

A `PictureStore` knows how many pictures there are, what they are called and how they are identified, and reads each of
them by index. Nothing is copied to disk, and only a few pictures are in memory at a time.
"""
