/* One decoding step of a Llama-like model, and the draw of a token, for float32 on a CPU; kernels.py builds and calls them.

   Weights come packed in panels of PANEL outputs (see `project`), so that products are fast for few rows too, where
   libraries spend their time on packing. Of every row's cache the columns are read that the row has filled, and no
   others. Work is shared out over threads by rows and panels; no number depends on how.

   Plain C with vectors of the GNU kind: gcc and clang, any processor. Sums must be free to be reordered
   (-fassociative-math).

   Letters: B rows, E hidden size, D head size, Q query heads, H key heads, I inner size, T columns, V vocabulary. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define BLOCK 64       /* columns of the cache, or tokens, that are handled together */
#define MAX_HEAD 256   /* largest D */
#define SMALL 16384    /* numbers in a call that one thread handles by itself */
#define ROW_BLOCK 96   /* rows that pass a panel while it is near */

#if defined(__AVX512F__)
#define LANES 16
#define TILE 12 /* rows at once: their sums, two vectors each, fill the registers */
#else
#define LANES 8
#define TILE 6
#endif
#define PANEL (2 * LANES)

const int64_t burnish_panel = PANEL, burnish_block = BLOCK, burnish_max_head = MAX_HEAD;

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4)));

/* A linear layer: weights [ceil(outputs / PANEL), inputs, PANEL], the last panel filled up with zeros; bias [outputs] or
   NULL. */
typedef struct {
    const float *panels, *bias;
    int64_t inputs, outputs;
} Linear;

typedef struct {
    const float *norm_attention; /* [E] */
    Linear query_key_value;
    const float *norm_heads; /* [Q + H, D] or NULL (Qwen3) */
    Linear output;
    const float *norm_mlp; /* [E] */
    Linear gate_up;
    Linear down;
    float *keys, *values; /* [rows, H, capacity, D] */
} Layer;

typedef struct {
    const float *embedding; /* [V, E] */
    const Layer *layers;
    const float *norm; /* [E] */
    Linear head;
    const float *cosine, *sine; /* [T, D]; the first half of `sine` is negated */
    int64_t num_layers, num_queries, num_keys, head_size;
    float epsilon, scaling;
} Model;

/* Room for the rows of a step. */
typedef struct {
    float *x, *normed, *heads, *attended, *gate_up, *inner;
} Scratch;

/* exp(x) for x <= 0, 0 below -87; relative error under 2e-7 (the polynomial of Cephes' expf). */
static inline float exp_negative(float x)
{
    float bounded = x < -87.0f ? -87.0f : x;
    float whole = (float)(int32_t)(bounded * 1.44269504f - 0.5f);
    float rest = bounded - whole * 0.693359375f + whole * 2.12194440e-4f;
    float sum = 1.9875691500e-4f;
    sum = sum * rest + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * rest * rest + rest + 1.0f;
    union { int32_t bits; float value; } scale = { .bits = ((int32_t)whole + 127) << 23 };
    return x < -87.0f ? 0.0f : sum * scale.value;
}

static inline float inverse_norm(const float *x, int64_t n, float epsilon)
{
    float squares = 0.0f;
    for (int64_t i = 0; i < n; i++)
        squares += x[i] * x[i];
    return 1.0f / sqrtf(squares / (float)n + epsilon);
}

/* out[b] = x[b] / rms(x[b]) * weight, rows of `size`. */
static void rms_norm(const float *x, const float *weight, float *out, int64_t rows, int64_t size, float epsilon)
{
#pragma omp parallel for if (rows * size > SMALL)
    for (int64_t b = 0; b < rows; b++) {
        const float *from = x + b * size;
        float *to = out + b * size, factor = inverse_norm(from, size, epsilon);
        for (int64_t i = 0; i < size; i++)
            to[i] = from[i] * factor * weight[i];
    }
}

/* out[b] = silu(gate) * up, where a row of `gate_up` is gate and then up, `size` numbers each. */
static void gated(const float *gate_up, float *out, int64_t rows, int64_t size)
{
#pragma omp parallel for if (rows * size > SMALL)
    for (int64_t b = 0; b < rows; b++) {
        const float *gate = gate_up + 2 * b * size, *up = gate + size;
        float *to = out + b * size;
        for (int64_t i = 0; i < size; i++) {
            float small = exp_negative(-fabsf(gate[i]));
            to[i] = gate[i] * up[i] * (gate[i] >= 0.0f ? 1.0f : small) / (1.0f + small);
        }
    }
}

/* sums [rows, PANEL] = the products of at most TILE rows with one panel. `rows` is known when this is compiled. */
static inline __attribute__((always_inline)) void tile(
    const float *panel, const float *x, float *sums, int64_t inputs, const int rows)
{
    lanes left[TILE], right[TILE];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        left[r] = right[r] = (lanes){ 0 };
    for (int64_t k = 0; k < inputs; k++) {
        lanes a = *(const lanes *)(panel + k * PANEL), b = *(const lanes *)(panel + k * PANEL + LANES);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            left[r] += a * x[r * inputs + k];
            right[r] += b * x[r * inputs + k];
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        *(lanes *)(sums + r * PANEL) = left[r];
        *(lanes *)(sums + r * PANEL + LANES) = right[r];
    }
}

static void tile_of(const float *panel, const float *x, float *sums, int64_t inputs, int64_t rows)
{
    switch (rows) {
    case 1: tile(panel, x, sums, inputs, 1); break;
    case 2: tile(panel, x, sums, inputs, 2); break;
    case 3: tile(panel, x, sums, inputs, 3); break;
    case 4: tile(panel, x, sums, inputs, 4); break;
    case 5: tile(panel, x, sums, inputs, 5); break;
#if TILE > 6
    case 6: tile(panel, x, sums, inputs, 6); break;
    case 7: tile(panel, x, sums, inputs, 7); break;
    case 8: tile(panel, x, sums, inputs, 8); break;
    case 9: tile(panel, x, sums, inputs, 9); break;
    case 10: tile(panel, x, sums, inputs, 10); break;
    case 11: tile(panel, x, sums, inputs, 11); break;
#endif
    default: tile(panel, x, sums, inputs, TILE);
    }
}

/* out [B, outputs] = x [B, inputs] times the layer's weights, plus its bias; with `add`, added to what `out` holds.

   A panel holds PANEL outputs side by side for every input, so vectors run over outputs, no sum is across a vector, and
   every weight is read once for TILE rows (Goto and van de Geijn 2008, doi:10.1145/1356052.1356053, without the packing
   in each call). */
static void project(const Linear *layer, const float *x, float *out, int64_t rows, int add)
{
    int64_t inputs = layer->inputs, outputs = layer->outputs, count = (outputs + PANEL - 1) / PANEL;
    int64_t blocks = (rows + ROW_BLOCK - 1) / ROW_BLOCK;
#pragma omp parallel for collapse(2) if (rows * outputs > SMALL)
    for (int64_t block = 0; block < blocks; block++) {
        for (int64_t p = 0; p < count; p++) {
            int64_t width = outputs - p * PANEL < PANEL ? outputs - p * PANEL : PANEL;
            int64_t end = (block + 1) * ROW_BLOCK < rows ? (block + 1) * ROW_BLOCK : rows;
            for (int64_t first = block * ROW_BLOCK; first < end; first += TILE) {
                int64_t num = end - first < TILE ? end - first : TILE;
                float sums[TILE * PANEL];
                tile_of(layer->panels + p * inputs * PANEL, x + first * inputs, sums, inputs, num);
                for (int64_t r = 0; r < num; r++) {
                    float *to = out + (first + r) * outputs + p * PANEL;
                    for (int64_t i = 0; layer->bias && i < width; i++)
                        sums[r * PANEL + i] += layer->bias[p * PANEL + i];
                    for (int64_t i = 0; i < width; i++)
                        to[i] = add ? to[i] + sums[r * PANEL + i] : sums[r * PANEL + i];
                }
            }
        }
    }
}

/* Rotate a head in place; `sine` has its first half negated. With `scale`, normalise it first (Qwen3). */
static inline void turn(float *head, const float *scale, const float *cosine, const float *sine, int size, float epsilon)
{
    float kept[MAX_HEAD];
    int half = size / 2;
    float factor = scale ? inverse_norm(head, size, epsilon) : 1.0f;
    for (int i = 0; i < size; i++)
        kept[i] = scale ? head[i] * factor * scale[i] : head[i];
    for (int i = 0; i < half; i++) {
        head[i] = kept[i] * cosine[i] + kept[i + half] * sine[i];
        head[i + half] = kept[i + half] * cosine[i + half] + kept[i] * sine[i + half];
    }
}

/* One query over `length` columns of keys and values, a block at a time with a running maximum, so that any length
   needs the same scratch (Milakov and Gimelshein 2018, arXiv:1805.02867). */
static inline __attribute__((always_inline)) void look(
    const float *query, const float *keys, const float *values, float *out, int64_t length, const int size, float scaling)
{
    float scores[BLOCK], sum[MAX_HEAD], peak = -INFINITY, total = 0.0f;
    for (int i = 0; i < size; i++)
        sum[i] = 0.0f;
    for (int64_t start = 0; start < length; start += BLOCK) {
        int count = length - start < BLOCK ? (int)(length - start) : BLOCK;
        float top = peak;
        for (int t = 0; t < count; t++) {
            const float *key = keys + (start + t) * size;
            float product = 0.0f;
            for (int i = 0; i < size; i++)
                product += query[i] * key[i];
            scores[t] = product * scaling;
            top = scores[t] > top ? scores[t] : top;
        }
        float shrink = exp_negative(peak - top);
        peak = top;
        total *= shrink;
        for (int i = 0; i < size; i++)
            sum[i] *= shrink;
        for (int t = 0; t < count; t++)
            scores[t] = exp_negative(scores[t] - peak);
        for (int t = 0; t < count; t++)
            total += scores[t];
        for (int t = 0; t < count; t++) {
            const float *value = values + (start + t) * size;
            for (int i = 0; i < size; i++)
                sum[i] += scores[t] * value[i];
        }
    }
    for (int i = 0; i < size; i++)
        out[i] = sum[i] / total;
}

/* Rotary position, the new column of the cache, and attention over the row's columns.

   heads      [B, Q + 2 * H, D]: projected queries, keys and values; queries and keys are turned in place
   slots      [B]: row b of this step is row slots[b] of the cache
   attended   [B, Q * D] */
static void attend(
    const Model *model, const Layer *layer, float *heads, const int64_t *positions, const int64_t *slots,
    float *attended, int64_t rows, int64_t capacity)
{
    int64_t num_queries = model->num_queries, num_keys = model->num_keys, size = model->head_size;
    int64_t group = num_queries / num_keys, stride = num_keys * capacity * size;
#pragma omp parallel for collapse(2) schedule(dynamic, 4) if (rows * num_queries * size > SMALL / 8)
    for (int64_t b = 0; b < rows; b++) {
        for (int64_t h = 0; h < num_keys; h++) {
            int64_t position = positions[b], head = num_queries + h;
            const float *cosine = model->cosine + position * size, *sine = model->sine + position * size;
            const float *scales = layer->norm_heads;
            float *row = heads + b * (num_queries + 2 * num_keys) * size, *key = row + head * size;
            float *keys = layer->keys + slots[b] * stride + h * capacity * size;
            float *values = layer->values + slots[b] * stride + h * capacity * size;
            turn(key, scales ? scales + head * size : NULL, cosine, sine, (int)size, model->epsilon);
            memcpy(keys + position * size, key, sizeof(float) * size);
            memcpy(values + position * size, row + (head + num_keys) * size, sizeof(float) * size);
            for (int64_t g = h * group; g < (h + 1) * group; g++) {
                float *query = row + g * size, *to = attended + (b * num_queries + g) * size;
                turn(query, scales ? scales + g * size : NULL, cosine, sine, (int)size, model->epsilon);
                switch (size) { /* loops over sizes that are known when this is compiled are unrolled */
                case 32: look(query, keys, values, to, position + 1, 32, model->scaling); break;
                case 64: look(query, keys, values, to, position + 1, 64, model->scaling); break;
                case 128: look(query, keys, values, to, position + 1, 128, model->scaling); break;
                default: look(query, keys, values, to, position + 1, (int)size, model->scaling);
                }
            }
        }
    }
}

/* logits [B, V] after `tokens`, which stand at `positions`; their keys and values are written to the cache. */
void burnish_step(
    const Model *model, const int64_t *tokens, const int64_t *positions, const int64_t *slots, const Scratch *scratch,
    float *logits, int64_t rows, int64_t capacity)
{
    int64_t hidden = model->head.inputs;
    for (int64_t b = 0; b < rows; b++)
        memcpy(scratch->x + b * hidden, model->embedding + tokens[b] * hidden, sizeof(float) * hidden);
    for (int64_t index = 0; index < model->num_layers; index++) {
        const Layer *layer = model->layers + index;
        rms_norm(scratch->x, layer->norm_attention, scratch->normed, rows, hidden, model->epsilon);
        project(&layer->query_key_value, scratch->normed, scratch->heads, rows, 0);
        attend(model, layer, scratch->heads, positions, slots, scratch->attended, rows, capacity);
        project(&layer->output, scratch->attended, scratch->x, rows, 1);
        rms_norm(scratch->x, layer->norm_mlp, scratch->normed, rows, hidden, model->epsilon);
        project(&layer->gate_up, scratch->normed, scratch->gate_up, rows, 0);
        gated(scratch->gate_up, scratch->inner, rows, layer->down.inputs);
        project(&layer->down, scratch->inner, scratch->x, rows, 1);
    }
    rms_norm(scratch->x, model->norm, scratch->normed, rows, hidden, model->epsilon);
    project(&model->head, scratch->normed, logits, rows, 0);
}

/* Turn logits into unnormalised probabilities in place, exp((x - max) * inverse_temperature); their sums by BLOCK go to
   `sums`. Returns the total, NaN when a logit is NaN or the largest is infinite. */
static double weigh(float *logits, double *sums, int64_t vocabulary, float inverse_temperature, float *peak)
{
    float top = -INFINITY;
    int spoilt = 0;
    for (int64_t v = 0; v < vocabulary; v++)
        top = logits[v] > top ? logits[v] : top;
    for (int64_t v = 0; v < vocabulary; v++)
        spoilt |= logits[v] != logits[v];
    *peak = top;
    if (spoilt || !(fabsf(top) < INFINITY))
        return NAN;
    double total = 0.0;
    for (int64_t start = 0, block = 0; start < vocabulary; start += BLOCK, block++) {
        int count = vocabulary - start < BLOCK ? (int)(vocabulary - start) : BLOCK;
        float sum = 0.0f;
        for (int i = 0; i < count; i++) {
            logits[start + i] = exp_negative((logits[start + i] - top) * inverse_temperature);
            sum += logits[start + i];
        }
        sums[block] = sum;
        total += sum;
    }
    return total;
}

/* The first token at which the running sum of the weights exceeds the threshold; never one of weight 0. */
static int64_t reached(const float *weights, const double *sums, int64_t vocabulary, double threshold)
{
    double before = 0.0;
    int64_t block = 0, last = (vocabulary - 1) / BLOCK, found = -1;
    while (block < last && before + sums[block] <= threshold)
        before += sums[block++];
    while (found < 0) {
        int64_t end = (block + 1) * BLOCK < vocabulary ? (block + 1) * BLOCK : vocabulary;
        for (int64_t v = block * BLOCK; v < end; v++) {
            before += weights[v];
            if (weights[v] > 0.0f) {
                found = v; /* and the last one of the block, should rounding leave the sum below the threshold */
                if (before > threshold)
                    break;
            }
        }
        block--;
    }
    return found;
}

/* Draw a token for every row of logits [B, V], which are overwritten, by inverting the cumulative distribution.

   uniforms   [B] in [0, 1)
   scratch    [B, ceil(V / BLOCK)]
   tokens     [B]; 0 where the logits are not finite
   logprobs   [B], of log_softmax(logits * inverse_temperature); NaN where the logits are not finite */
void burnish_draw(
    float *logits, const double *uniforms, double *scratch, int64_t *tokens, float *logprobs, int64_t rows,
    int64_t vocabulary, float inverse_temperature)
{
    int64_t blocks = (vocabulary + BLOCK - 1) / BLOCK;
#pragma omp parallel for if (rows * vocabulary > SMALL)
    for (int64_t b = 0; b < rows; b++) {
        float *row = logits + b * vocabulary, peak;
        double *sums = scratch + b * blocks;
        double total = weigh(row, sums, vocabulary, inverse_temperature, &peak);
        tokens[b] = 0;
        logprobs[b] = NAN;
        if (total == total) {
            tokens[b] = reached(row, sums, vocabulary, uniforms[b] * total);
            logprobs[b] = fminf((float)(log((double)row[tokens[b]]) - log(total)), 0.0f);
        }
    }
}
