"""Readers for labels of images: COCO's JSON, YOLO's text files, Pascal VOC's XML, class maps; and where they lie."""
