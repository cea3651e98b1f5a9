/* SPDX-License-Identifier: MIT */
/* What only the loader of model files sets. For this folder. */
#ifndef SPECKV_PREDICTOR_MODEL_H
#define SPECKV_PREDICTOR_MODEL_H

#include <speckv/predictor.h>

/* Set the prediction window of a model's scores. */
void predictor_set_window(struct speckv_predictor *model, uint32_t window_ms);

#endif
