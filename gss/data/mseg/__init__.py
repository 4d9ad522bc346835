"""MSeg's data sets: from the labels that each is published with to those that MSeg trains and tests on."""
