-- The record of one run. One writer, WAL, one transaction per step with its rollups; readers open it read-only.
--
-- refs      The writer has `foreign_keys` on and writes parents first: checking a reference is one look-up of a key.
-- live      Resuming supersedes: steps recorded after the checkpoint keep their rows and lose `live`. Read the views
--           (*_v) or join `steps` with `live`, and every step appears once.
-- codes     status, finish, outcome, what and flags are small integers; `codes` and `hist_kinds` say what they mean.
-- NULL      was not measured, or does not exist. A value that exists and is NaN (SQLite has no NaN) is NULL with
--           its `nan` column or a bit of `flags` set; infinities are stored as they are.
-- ids       Rollouts of a group are consecutive: siblings are rollout_id >= first_rollout AND < first_rollout + n.
-- kept      says what was written of a rollout. Over the size limit the oldest bodies and token arrays are dropped, and
--           an event `store/dropped` says so: a rollout with the bit and without the row was dropped.
-- rebuilt   A record that was lost is rebuilt from metrics.jsonl: its steps have metrics and no rollouts, and what the
--           other files do not tell is NULL. An event `store/rebuilt` says so.

CREATE TABLE runs(run_id TEXT PRIMARY KEY, name TEXT NOT NULL, created REAL NOT NULL, objective TEXT NOT NULL,
  config TEXT NOT NULL, config_sha TEXT NOT NULL, data TEXT NOT NULL, packages TEXT NOT NULL, code TEXT NOT NULL,
  host TEXT NOT NULL, raw_low REAL NOT NULL, raw_high REAL NOT NULL) WITHOUT ROWID;  -- raw_*: scale of group_strip

-- One row per start of the run. `beat` is the time of the last transaction: an attempt without `ended` whose beat is
-- old was killed.
CREATE TABLE attempts(attempt INTEGER PRIMARY KEY, started REAL, beat REAL, ended REAL,
  from_step INTEGER NOT NULL, exit_code INTEGER, reason TEXT, config_diff TEXT, pid INTEGER, host TEXT);

CREATE TABLE steps(step_id INTEGER PRIMARY KEY, step INTEGER NOT NULL, attempt INTEGER NOT NULL REFERENCES attempts,
  live INTEGER NOT NULL DEFAULT 1, started REAL, seconds REAL, policy_version INTEGER, n_updates INTEGER,
  n_rounds INTEGER, first_rollout INTEGER, n_rollouts INTEGER, n_tokens INTEGER,
  n_bodies INTEGER, n_token_arrays INTEGER,  -- of n_rollouts, how many were kept in full
  content_sha BLOB,   -- everything recorded but times: two runs agree on a step if and only if these do
  group_strip BLOB);  -- a byte per group: raw mean as 0..250 of raw_low..raw_high, 251 surplus, 252 no score
CREATE UNIQUE INDEX steps_live ON steps(step) WHERE live;

CREATE TABLE prompts(prompt_id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, text TEXT NOT NULL, answer TEXT,
  meta TEXT, flags INTEGER NOT NULL DEFAULT 0);

-- `dispatch` is the run's own id of the group. It is not the key: a resumed attempt dispatches the same ids again, and
-- surplus carried into the next step is recorded in both.
CREATE TABLE groups(group_id INTEGER PRIMARY KEY, dispatch INTEGER NOT NULL, step_id INTEGER NOT NULL REFERENCES steps,
  prompt_id INTEGER NOT NULL REFERENCES prompts, round INTEGER NOT NULL, outcome INTEGER NOT NULL,
  first_rollout INTEGER NOT NULL, n INTEGER NOT NULL, n_right INTEGER NOT NULL, n_truncated INTEGER NOT NULL,
  n_fault INTEGER NOT NULL, n_answers INTEGER NOT NULL, raw_mean REAL, raw_min REAL, raw_max REAL, total_mean REAL,
  total_std REAL, len_mean REAL, kept INTEGER NOT NULL);  -- kept: 1 when all siblings have bodies and token arrays
CREATE INDEX groups_step ON groups(step_id, outcome);
CREATE INDEX groups_prompt ON groups(prompt_id, step_id);
CREATE INDEX groups_outcome ON groups(outcome, group_id);

CREATE TABLE rollouts(rollout_id INTEGER PRIMARY KEY, group_id INTEGER NOT NULL REFERENCES groups,
  step_id INTEGER NOT NULL REFERENCES steps, prompt_id INTEGER NOT NULL REFERENCES prompts, sibling INTEGER NOT NULL,
  policy_version INTEGER NOT NULL, status INTEGER NOT NULL, finish INTEGER NOT NULL, answer TEXT, raw REAL, total REAL,
  advantage REAL, length INTEGER NOT NULL, old_logprob_mean REAL, entropy_mean REAL, ratio_max REAL,
  n_clip_low INTEGER, n_clip_high INTEGER, n_clip_dual INTEGER, mismatch REAL, confidence REAL, target REAL,
  repeat_share REAL, reward_ms REAL, text_sha INTEGER NOT NULL, flags INTEGER NOT NULL DEFAULT 0,
  kept INTEGER NOT NULL DEFAULT 0);  -- bit 1: body, bit 2: token arrays
CREATE INDEX rollouts_fault ON rollouts(status, rollout_id) WHERE status >= 2;
CREATE INDEX rollouts_truncated ON rollouts(rollout_id) WHERE finish = 1;
CREATE INDEX rollouts_flagged ON rollouts(rollout_id) WHERE flags != 0;

-- text: zlib of UTF-8.
CREATE TABLE bodies(rollout_id INTEGER PRIMARY KEY REFERENCES rollouts, text BLOB NOT NULL, message TEXT);

-- Each array is zlib of n little-endian values: ids int32, n_bytes uint16 (bytes of text per token), old, learner and
-- new float32 (half precision would hide a mismatch of 1e-3), entropy float16, clip and mask int8, and push float16 to
-- be multiplied by push_scale (a token's push is about 1 / tokens of the update, below the smallest half).
CREATE TABLE tokens(rollout_id INTEGER PRIMARY KEY REFERENCES rollouts, n INTEGER NOT NULL, ids BLOB NOT NULL,
  n_bytes BLOB, old BLOB NOT NULL, learner BLOB, new BLOB, entropy BLOB, push BLOB, push_scale REAL, clip BLOB,
  mask BLOB);

CREATE TABLE part_names(part_id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, weight REAL, is_task INTEGER);
CREATE TABLE score_parts(rollout_id INTEGER NOT NULL REFERENCES rollouts,
  part_id INTEGER NOT NULL REFERENCES part_names, value REAL, PRIMARY KEY(rollout_id, part_id)) WITHOUT ROWID;

CREATE TABLE metric_names(name_id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, unit TEXT, formula TEXT, scale TEXT,
  healthy TEXT, better TEXT);
CREATE TABLE metrics(name_id INTEGER NOT NULL REFERENCES metric_names, step_id INTEGER NOT NULL REFERENCES steps,
  value REAL, se REAL, nan INTEGER NOT NULL DEFAULT 0, PRIMARY KEY(name_id, step_id)) WITHOUT ROWID;

-- Evaluations name (step, attempt) and not step_id: the one before training belongs to step 0, which has no row in
-- `steps`. A suite whose prompts changed is another suite of the same name.
CREATE TABLE suites(suite_id INTEGER PRIMARY KEY, name TEXT NOT NULL, sha TEXT, n_prompts INTEGER, UNIQUE(name, sha));
CREATE TABLE evaluations(eval_id INTEGER PRIMARY KEY, suite_id INTEGER NOT NULL REFERENCES suites,
  step INTEGER NOT NULL, attempt INTEGER NOT NULL REFERENCES attempts, t REAL);
CREATE TABLE evals(eval_id INTEGER NOT NULL REFERENCES evaluations, metric TEXT NOT NULL, k INTEGER NOT NULL,
  value REAL, lo REAL, hi REAL, nan INTEGER NOT NULL DEFAULT 0, PRIMARY KEY(eval_id, metric)) WITHOUT ROWID;
-- `item` is the place in the suite: a prompt may stand in it twice. n counts the completions that could be graded.
CREATE TABLE eval_items(eval_id INTEGER NOT NULL REFERENCES evaluations, item INTEGER NOT NULL,
  prompt_id INTEGER NOT NULL REFERENCES prompts, n INTEGER NOT NULL, n_right INTEGER NOT NULL, majority_right INTEGER,
  len_mean REAL, conf_mean REAL, PRIMARY KEY(eval_id, item)) WITHOUT ROWID;

-- `step` and not step_id: what happens within a step happens before the step is recorded.
CREATE TABLE events(event_id INTEGER PRIMARY KEY, t REAL NOT NULL, attempt INTEGER NOT NULL REFERENCES attempts,
  step INTEGER, kind TEXT NOT NULL, severity INTEGER NOT NULL, rule TEXT, value REAL, threshold REAL,
  message TEXT NOT NULL, advice TEXT, data TEXT, nan INTEGER NOT NULL DEFAULT 0);
CREATE INDEX events_severity ON events(severity, event_id) WHERE severity >= 2;

-- Rollups, written in the same transaction as the step.
CREATE TABLE step_status(step_id INTEGER REFERENCES steps, status INTEGER, finish INTEGER, n INTEGER, sum_raw REAL,
  PRIMARY KEY(step_id, status, finish)) WITHOUT ROWID;
CREATE TABLE step_outcome(step_id INTEGER REFERENCES steps, outcome INTEGER, n INTEGER,
  PRIMARY KEY(step_id, outcome)) WITHOUT ROWID;
CREATE TABLE step_hist(what INTEGER, step_id INTEGER REFERENCES steps, bin INTEGER, n INTEGER,
  PRIMARY KEY(what, step_id, bin)) WITHOUT ROWID;
CREATE TABLE step_extremes(what INTEGER, step_id INTEGER REFERENCES steps, rank INTEGER,
  rollout_id INTEGER REFERENCES rollouts, value REAL, PRIMARY KEY(what, step_id, rank)) WITHOUT ROWID;
-- share: the part's share of the spread of the total within groups; shares of all parts add up to 1.
CREATE TABLE step_parts(step_id INTEGER REFERENCES steps, part_id INTEGER REFERENCES part_names, n INTEGER, mean REAL,
  sd REAL, lo REAL, hi REAL, share REAL, PRIMARY KEY(part_id, step_id)) WITHOUT ROWID;
CREATE TABLE step_calib(step_id INTEGER REFERENCES steps, bin INTEGER, n INTEGER, sum_conf REAL, sum_right REAL,
  sum_sq REAL, PRIMARY KEY(step_id, bin)) WITHOUT ROWID;  -- confidence; empty where none is measured
-- Over live steps. Accuracies are right / with a verdict.
CREATE TABLE prompt_stats(prompt_id INTEGER PRIMARY KEY REFERENCES prompts, n_groups INTEGER, n INTEGER,
  n_right INTEGER, n_fault INTEGER, first_step INTEGER, last_step INTEGER, first_acc REAL, last_acc REAL);

-- What the integers mean.
CREATE TABLE codes(kind TEXT NOT NULL, code INTEGER NOT NULL, word TEXT NOT NULL, PRIMARY KEY(kind, code)) WITHOUT ROWID;
-- linear: bin b holds [b * width, (b + 1) * width). log2: bin b holds [2^(b * width), 2^((b + 1) * width)) of value + 1.
CREATE TABLE hist_kinds(what INTEGER PRIMARY KEY, name TEXT NOT NULL, scale TEXT NOT NULL, width REAL NOT NULL);

CREATE VIEW rollouts_v AS SELECT r.rollout_id, s.step, s.attempt, p.uid AS prompt, r.group_id, r.sibling,
  status.word AS status, finish.word AS finish_reason, r.answer, r.raw, r.total, r.advantage, r.length,
  r.old_logprob_mean, r.entropy_mean, r.mismatch, r.ratio_max, r.n_clip_low, r.n_clip_high, r.n_clip_dual,
  r.confidence, r.repeat_share, r.reward_ms, r.flags, r.kept, b.message
  FROM rollouts r JOIN steps s USING(step_id) JOIN prompts p USING(prompt_id)
  JOIN codes status ON status.kind = 'status' AND status.code = r.status
  JOIN codes finish ON finish.kind = 'finish' AND finish.code = r.finish
  LEFT JOIN bodies b USING(rollout_id) WHERE s.live;
CREATE VIEW groups_v AS SELECT g.group_id, g.dispatch, s.step, s.attempt, p.uid AS prompt, g.round,
  outcome.word AS outcome, g.first_rollout, g.n, g.n_right, g.n_truncated, g.n_fault, g.n_answers, g.raw_mean,
  g.raw_min, g.raw_max, g.total_mean, g.total_std, g.len_mean, g.kept
  FROM groups g JOIN steps s USING(step_id) JOIN prompts p USING(prompt_id)
  JOIN codes outcome ON outcome.kind = 'outcome' AND outcome.code = g.outcome WHERE s.live;
CREATE VIEW metrics_v AS SELECT s.step, n.name, m.value, m.se, m.nan
  FROM metrics m JOIN metric_names n USING(name_id) JOIN steps s USING(step_id) WHERE s.live;
-- An evaluation is superseded by an attempt that started from before its step, and by a later one of the same thing.
CREATE VIEW evals_v AS SELECT e.step, su.name AS suite, v.metric, v.k, v.value, v.lo, v.hi, v.nan, e.eval_id
  FROM evaluations e JOIN suites su USING(suite_id) JOIN evals v USING(eval_id)
  WHERE NOT EXISTS (SELECT 1 FROM attempts a WHERE a.attempt > e.attempt AND a.from_step < e.step)
  AND NOT EXISTS (SELECT 1 FROM evaluations l JOIN evals lv USING(eval_id)
    WHERE l.suite_id = e.suite_id AND l.step = e.step AND lv.metric = v.metric AND l.eval_id > e.eval_id);
