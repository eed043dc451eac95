// src/stage/all.cpp - the stage as one translation unit, so that the compiler sees and drops what is not used.
#include "init.cpp"
#include "keeper.cpp"
