"""Labels in annotation files, such as polygons in COCO's JSON: reading these, and making label files of them."""
