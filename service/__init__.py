"""cxrview: frontal or lateral, from the pixels of a chest radiograph."""
