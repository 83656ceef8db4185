"""verl's spellings."""

from __future__ import annotations

from burnish.foreign.aliases.rows import (
    ACTOR,
    BFLOAT16,
    FLOAT32,
    INSTEAD_DROP,
    INSTEAD_FULL,
    MODEL,
    NO_FLOAT16,
    NO_SCHEDULE,
    NO_SINK,
    NONE,
    ON_OFF,
    ROLLOUT,
    SCHEDULES,
    SINKS,
    WHY_ENGINE,
    WHY_LOG,
    WHY_OFF,
    WHY_PIECES,
    WHY_SEED,
    WHY_SHARDING,
    Choice,
    Ignored,
    Listing,
    Pair,
    Quantity,
    Refused,
    Rest,
    Row,
    Same,
)

VERL: tuple[Row, ...] = (
    # -- model and data
    Same("path", "model.path", "some/model", under=MODEL),
    Same(f"{MODEL}trust_remote_code data.trust_remote_code", "model.trust_remote_code", "True"),
    Same(
        f"{MODEL}enable_gradient_checkpointing trainer.gradient_checkpointing", "model.gradient_checkpointing", "True"
    ),
    Choice("trainer.bf16", {"true": BFLOAT16, "false": FLOAT32}, NO_FLOAT16),
    Choice(
        "dtype mixed_precision.param_dtype",
        {"bfloat16 bf16": BFLOAT16, "float32 fp32": FLOAT32},
        NO_FLOAT16,
        under=f"{ACTOR}fsdp_config.",
    ),
    Choice(
        "model_dtype",
        {"fp32 float32 null": {}},
        "master weights are kept in float32: leave it out, and type model.dtype=bfloat16 to compute in bfloat16",
        under=f"{ACTOR}fsdp_config.",
    ),
    Choice("trainer.device", {"cuda": {}, "cpu": {"model.device": "cpu"}}, "devices are cuda and cpu: leave it out"),
    Same("data.train_files", "data.train", "modchain"),
    Same("data.val_files", "eval.data", "modchain"),
    Same("data.train_max_samples", "data.limit", "100", special={"-1": None}),
    Same("data.val_max_samples", "eval.prompts", "100", special={"-1": None}),
    Same("data.prompt_key", "data.columns.prompt", "question"),
    Same(f"data.max_prompt_length {ROLLOUT}prompt_length", "data.max_prompt_tokens", "512"),
    Same(f"data.max_response_length {ROLLOUT}response_length", "sampling.max_new_tokens", "512"),
    Same("data.seed", "seed", "7"),
    Quantity("data.filter_overlong_prompts", "drop_overlong_prompts"),
    Quantity("data.truncation", "truncation"),
    Quantity("data.train_batch_size", "prompts"),
    # -- sampling
    Same(f"{ROLLOUT}n algorithm.num_generations", "sampling.group_size", "16"),
    Same("temperature", "sampling.temperature", "0.9", under=ROLLOUT),
    Same("top_p", "sampling.top_p", "0.9", under=ROLLOUT),
    Same("top_k", "sampling.top_k", "50", off="-1", under=ROLLOUT),
    Choice("do_sample", {"true": {}, "false": {"sampling.temperature": "0"}}, "it is true or false", under=ROLLOUT),
    Same("n", "eval.samples", "32", under=f"{ROLLOUT}val_kwargs."),
    Same("temperature", "eval.temperature", "0.6", under=f"{ROLLOUT}val_kwargs."),
    Same("top_p", "eval.top_p", "0.7", under=f"{ROLLOUT}val_kwargs."),
    Refused("top_k", "evaluation has no top-k", "leave it out", ("-1", "0", "null"), under=f"{ROLLOUT}val_kwargs."),
    Quantity("algorithm.filter_groups.enable", "filter_on"),
    Quantity("algorithm.filter_groups.metric", "filter_metric"),
    Same(
        "algorithm.filter_groups.max_num_gen_batches",
        "sampling.max_rounds",
        "20",
        special={"0": "1000", "-1": "1000"},
        also={"sampling.on_exhausted": "error"},
    ),
    # -- objective
    Choice(
        "algorithm.adv_estimator",
        {
            "gae": {"objective.name": "ppo"},
            "grpo grpo_vectorized": {"objective.name": "grpo"},
            "rloo rloo_vectorized": {"objective.name": "grpo", "objective.advantage": "leave_one_out"},
            "opo": {"objective.name": "grpo", "objective.advantage": "length_weighted"},
            "grpo_passk": {"objective.name": "grpo", "objective.advantage": "best_of_group"},
            "reinforce_plus_plus_baseline": {"objective.name": "reinforce_pp"},
            "gdpo": {
                "objective.name": "grpo",
                "objective.advantage": "batch_scaled",
                "reward.combine.name": "normalized_sum",
            },
            "adpo": {"objective.name": "adpo"},
        },
        "it has no counterpart here: type algorithm.adv_estimator=grpo, or choose with objective.name",
        notes={"gdpo": "the last normalisation is over completions, not over tokens"},
    ),
    Choice(
        "algorithm.norm_adv_by_std_in_grpo",
        {"true": {}, "false": {"objective.advantage": "centered"}},
        "it is true or false",
    ),
    Quantity("clip_ratio", "clip", under=ACTOR),
    Quantity("clip_ratio_low", "clip_low", under=ACTOR),
    Quantity("clip_ratio_high", "clip_high", under=ACTOR),
    Same("clip_ratio_c", "objective.dual_clip", "5.0", under=ACTOR),
    Choice(
        "loss_agg_mode",
        {
            "token-mean": {"objective.reduction": "token_mean"},
            "seq-mean-token-mean": {"objective.reduction": "sequence_mean"},
            "seq-mean-token-sum-norm": {"objective.reduction": "fixed_length"},
        },
        "sums over tokens depend on the batch: type objective.reduction=fixed_length",
        notes={"seq-mean-token-sum-norm": "divided by sampling.max_new_tokens, not by the padded width"},
        under=ACTOR,
    ),
    Quantity("loss_scale_factor", "loss_divisor", under=ACTOR),
    Choice(
        "policy_loss.loss_mode",
        {
            "vanilla": {},
            "gspo": {"objective.name": "gspo"},
            "sapo": {"objective.name": "sapo"},
            "geo_mean": {"objective.name": "gmpo"},
            "cispo": {"objective.name": "cispo", "objective.cap_is": "excess"},
        },
        "it has no counterpart here: type objective.name=NAME, or leave it out",
        under=ACTOR,
    ),
    Same("tau_pos", "objective.tau_positive", "0.9", under=ACTOR),
    Same("tau_neg", "objective.tau_negative", "1.1", under=ACTOR),
    Choice(
        "algorithm.rollout_correction.rollout_is",
        {
            "token": {"objective.mismatch.correct": "token"},
            "sequence": {"objective.mismatch.correct": "sequence"},
            "false": {},
        },
        "type objective.mismatch.correct=token",
    ),
    Same("algorithm.rollout_correction.rollout_is_threshold", "objective.mismatch.cap", "3.0"),
    Same("entropy_coeff", "objective.entropy_coef", "0.001", under=ACTOR),
    Quantity("use_kl_loss", "kl_on", under=ACTOR),
    Quantity("kl_loss_coef", "kl_coef", under=ACTOR),
    Choice(
        "kl_loss_type",
        {
            "k2 mse": {"objective.kl.estimator": "k2"},
            "k3 low_var_kl": {"objective.kl.estimator": "k3"},
            "k3+ low_var_kl+": {"objective.kl.estimator": "k3_plus"},
            "k1+ kl+": {"objective.kl.estimator": "k1_plus"},
        },
        "its gradient in a loss is not that of a divergence: type objective.kl.estimator=k3_plus",
        under=ACTOR,
    ),
    Refused(
        "algorithm.use_kl_in_reward",
        "a divergence in the reward would enter what scores are compared with",
        "put it in the loss: objective.kl.coef=0.001",
        ON_OFF,
    ),
    # -- the value head
    Same("algorithm.gamma", "objective.gamma", "0.99"),
    Same("algorithm.lam", "objective.lam", "0.9"),
    Same("cliprange_value", "objective.value.clip", "0.5", under="critic."),
    Same("optim.lr", "objective.value.learning_rate", "1e-5", under="critic."),
    # -- updates
    Quantity("ppo_mini_batch_size", "minibatch", under=ACTOR),
    Same("ppo_epochs", "train.epochs", "2", under=ACTOR),
    Same("ppo_max_token_len_per_gpu", "train.tokens_per_piece", "16384", under=ACTOR),
    Same("optim.lr", "optimizer.learning_rate", "2e-6", under=ACTOR),
    Same("optim.weight_decay", "optimizer.weight_decay", "0.1", under=ACTOR),
    Pair("optim.betas", ("optimizer.beta1", "optimizer.beta2"), "[0.9, 0.95]", under=ACTOR),
    Same("grad_clip optim.clip_grad", "optimizer.max_grad_norm", "0.5", under=ACTOR),
    Quantity("optim.lr_warmup_steps", "warmup_steps", unset=("-1",), under=ACTOR),
    Quantity("optim.lr_warmup_steps_ratio", "warmup_share", unset=("0", "0.0"), under=ACTOR),
    Choice("optim.lr_scheduler_type optim.warmup_style", SCHEDULES, NO_SCHEDULE, under=ACTOR),
    Refused("optim.min_lr_ratio", "schedules fall to 0", INSTEAD_DROP, ("0", "0.0", "null"), under=ACTOR),
    Refused("optim.num_cycles", "the cosine falls once", INSTEAD_DROP, ("0.5", "null"), under=ACTOR),
    Choice("optim.optimizer", {"adamw": {}}, "the optimizer is AdamW: leave it out", under=ACTOR),
    Refused("optim.override_optimizer_config", "the optimizer is AdamW", INSTEAD_DROP, NONE, under=ACTOR),
    Quantity("trainer.total_epochs", "passes"),
    Same("trainer.total_training_steps", "train.steps", "50"),
    # -- reward
    Quantity("reward_model.reward_manager reward.reward_manager.name", "manager"),
    *(
        Quantity(f"{name}.enable", "overlong_on")
        for name in ("reward_model.overlong_buffer", "reward.reward_kwargs.overlong_buffer_cfg")
    ),
    *(
        Quantity(f"{name}.len", "overlong_tokens")
        for name in ("reward_model.overlong_buffer", "reward.reward_kwargs.overlong_buffer_cfg")
    ),
    *(
        Same(f"{name}.penalty_factor", "objective.overlong.factor", "0.5")
        for name in ("reward_model.overlong_buffer", "reward.reward_kwargs.overlong_buffer_cfg")
    ),
    Quantity("custom_reward_function.path reward.custom_reward_function.path", "function_file"),
    Quantity("custom_reward_function.name reward.custom_reward_function.name", "function_name"),
    *(
        Quantity(
            f"reward_model.reward_kwargs.{name} custom_reward_function.reward_kwargs.{name} "
            f"reward.custom_reward_function.reward_kwargs.{name}",
            name,
        )
        for name in ("ngram_size", "max_penalty", "penalty_scale_factor")
    ),
    Rest("custom_reward_function.reward_kwargs.*", "reward.parts.custom.args.", "0.5"),
    Rest("reward.custom_reward_function.reward_kwargs.*", "reward.parts.custom.args.", "0.5"),
    Quantity("algorithm.gdpo_reward_keys", "gdpo_keys", many=True),
    Quantity("algorithm.gdpo_reward_weights", "gdpo_weights", many=True),
    Quantity("reward_model.enable reward.reward_model.enable", "model_score_on"),
    Quantity("reward_model.model.path reward.reward_model.model_path", "model_score_path"),
    Quantity("reward_model.micro_batch_size_per_gpu reward_model.micro_batch_size", "model_score_batch"),
    Quantity("reward_model.max_length", "model_score_length"),
    # -- run
    Same("trainer.project_name", "log.project", "my-project"),
    Same("trainer.experiment_name", "name", "my-run"),
    Same("trainer.default_local_dir", "out", "runs/there"),
    Listing("trainer.logger", SINKS, NO_SINK),
    Same("trainer.save_freq", "checkpoint.every", "20", off="-1"),
    Same("trainer.test_freq", "eval.every", "5", off="-1"),
    Same("trainer.max_actor_ckpt_to_keep", "checkpoint.keep", "3", special={"1": "2"}),
    Choice("trainer.resume_mode", {"auto disable": {}}, "type `burnish train --resume RUN`"),
    Refused("trainer.resume_from_path", "runs are resumed by folder", "type `burnish train --resume RUN`", ON_OFF),
    Refused("trainer.val_only", "this command trains", "type `burnish eval MODEL DATA`", ON_OFF),
)
"""verl 0.9 and before, its DAPO recipe among them."""

VERL_SILENT: tuple[Row, ...] = (
    Ignored("trainer.val_before_train", "a run is always evaluated before and after"),
    Ignored(
        "n_gpus_per_node nnodes balance_batch ray_wait_register_center_timeout use_v1 v1.* esi_redundant_time",
        "one process trains; verl's batch sizes count over all devices, and so do these",
        under="trainer.",
    ),
    Ignored("log_val_generations rollout_data_dir validation_data_dir", WHY_LOG, under="trainer."),
    Ignored(
        "max_critic_ckpt_to_keep del_local_ckpt_after_load checkpoint_callback_class default_hdfs_dir",
        "checkpoints are whole, in the run folder, with the value head",
        under="trainer.",
    ),
    Refused(
        "trainer.critic_warmup",
        "value head and policy train together from the first update",
        INSTEAD_DROP,
        ("0",),
    ),
    Refused("trainer.v1.trainer_mode", "steps are synchronous", INSTEAD_DROP, ("sync",)),
    Ignored("data.gen_batch_size algorithm.filter_groups.max_inflight_gen_batches", "a round asks for what is missing"),
    Ignored("val_batch_size dataloader_num_workers filter_overlong_prompts_workers use_shm", WHY_ENGINE, under="data."),
    Ignored(
        "return_raw_input_ids return_raw_chat return_full_prompt return_multi_modal_inputs validation_shuffle "
        "image_key video_key audio_key image_patch_size mm_processor_kwargs custom_cls.name",
        "prompts are text, kept whole, and evaluation takes the first ones",
        under="data.",
    ),
    Ignored("data.reward_fn_key", "the grader is chosen by reward.style, not row by row"),
    Refused(
        "tokenizer custom_cls.path tool_config_path function_tool_path apply_chat_template_kwargs sampler.class_path",
        "the tokenizer and its template are the model's, and rows are read by burnish",
        INSTEAD_DROP,
        NONE,
        under="data.",
    ),
    Ignored(
        "ppo_micro_batch_size ppo_micro_batch_size_per_gpu use_dynamic_bsz use_fused_kernels use_remove_padding "
        "pad_to_length use_prefix_grouper",
        WHY_PIECES,
        under=ACTOR,
    ),
    Ignored(
        "log_prob_micro_batch_size log_prob_micro_batch_size_per_gpu log_prob_use_dynamic_bsz "
        "log_prob_max_token_len_per_gpu",
        WHY_PIECES,
        under=ROLLOUT,
    ),
    Ignored(
        "use_remove_padding use_fused_kernels fused_kernel_options.* use_liger tiled_mlp.*", WHY_PIECES, under=MODEL
    ),
    Ignored("use_shm enable_activation_offload override_config.attn_implementation", WHY_ENGINE, under=MODEL),
    Ignored("strategy fsdp_config.* megatron.* ulysses_sequence_parallel_size rollout_n", WHY_SHARDING, under=ACTOR),
    Ignored(
        "use_torch_compile entropy_from_logits_with_chunking entropy_from_logits_chunk_size entropy_checkpointing "
        "calculate_entropy calculate_sum_pi_squared profiler.* checkpoint.* freeze_vision_tower",
        WHY_ENGINE,
        under=ACTOR,
    ),
    Ignored("shuffle data_loader_seed", "groups are taken in the order of their prompts", under=ACTOR),
    Ignored("optim.total_training_steps optim.zero_indexed_step optim.optimizer_impl", WHY_ENGINE, under=ACTOR),
    Ignored("policy_loss.* router_replay.* qat.*", WHY_OFF, under=ACTOR),
    Refused("qat.enable fsdp_config.qat.enable", "weights are not quantised", INSTEAD_DROP, ON_OFF, under=ACTOR),
    Refused("router_replay.mode", "experts are not replayed", INSTEAD_DROP, ("disabled", "null"), under=ACTOR),
    Refused("lora_rank lora.rank", "there are no adapters", INSTEAD_FULL, ("0",), under=MODEL),
    Ignored("lora.* lora_alpha target_modules exclude_modules mtp.*", WHY_OFF, under=MODEL),
    Refused(
        "lora_adapter_path tokenizer_path hf_config_path custom_chat_template external_lib override_config "
        "override_config.*",
        "the model is loaded as it was saved, with its own tokenizer and template",
        "save it that way and give its directory as model.path",
        NONE,
        under=MODEL,
    ),
    Refused("mtp.enable", "there is no multi-token prediction", INSTEAD_DROP, ON_OFF, under=MODEL),
    Ignored(
        "name mode dtype load_format layered_summon gpu_memory_utilization enforce_eager free_cache_engine "
        "tensor_model_parallel_size data_parallel_size expert_parallel_size pipeline_model_parallel_size "
        "max_num_batched_tokens max_model_len max_num_seqs enable_chunked_prefill enable_prefix_caching "
        "cudagraph_capture_sizes disable_log_stats skip_tokenizer_init scheduling_policy logprobs_mode nnodes "
        "n_gpus_per_node engine_kwargs.* checkpoint_engine.* disaggregation.* prometheus.* profiler.* trace.* agent.* "
        "over_sample_rate multi_stage_wake_up router_config_path mtp mtp.* qat qat.* quantization_config_file "
        "moe_load_balance_metrics_interval",
        "the local engine generates, with the learner's own weights",
        under=ROLLOUT,
    ),
    Ignored("seed full_determinism", WHY_SEED, under=ROLLOUT),
    Ignored("val_kwargs.do_sample", "a temperature of 0 is greedy", under=ROLLOUT),
    Ignored("calculate_log_probs", "log-probabilities are always kept", under=ROLLOUT),
    Refused(
        "ignore_eos enable_rollout_routing_replay quantization multi_turn.enable",
        "the engine has no such mode",
        INSTEAD_DROP,
        ON_OFF,
        under=ROLLOUT,
    ),
    Refused(
        "agent.default_agent_loop", "answers have one turn", INSTEAD_DROP, ("single_turn_agent", "null"), under=ROLLOUT
    ),
    Ignored("multi_turn.*", WHY_OFF, under=ROLLOUT),
    Ignored("actor_rollout_ref.ref.* actor_rollout_ref.hybrid_engine actor_rollout_ref.nccl_timeout", WHY_SHARDING),
    Ignored("critic.*", "the value head is on the policy's trunk, and trains in its updates"),
    Ignored("algorithm.kl_penalty algorithm.kl_ctrl.* algorithm.pf_ppo.*", WHY_OFF),
    Refused("algorithm.use_pf_ppo", "prompts are not reweighted", INSTEAD_DROP, ON_OFF),
    Refused(
        "rollout_rs bypass_mode rollout_is_batch_normalize",
        "truncated weights are all there is",
        INSTEAD_DROP,
        ON_OFF,
        under="algorithm.rollout_correction.",
    ),
    Ignored("algorithm.rollout_correction.*", WHY_OFF),
    Ignored(
        "reward_model.overlong_buffer.log reward.reward_kwargs.overlong_buffer_cfg.log "
        "reward.reward_kwargs.max_resp_len",
        "every part of the reward is recorded, and the limit is sampling.max_new_tokens",
    ),
    *(
        Ignored(
            "strategy model.input_tokenizer model.use_shm model.use_remove_padding model.use_fused_kernels "
            "model.fsdp_config.* megatron.* rollout.* use_dynamic_bsz forward_max_token_len_per_gpu "
            "ulysses_sequence_parallel_size launch_reward_fn_async profiler.* enable_resource_pool n_gpus_per_node "
            "nnodes",
            "a reward model sits beside the policy and reads each text in its own template",
            under=under,
        )
        for under in ("reward_model.", "reward.reward_model.")
    ),
    Ignored("reward_model.sandbox_fusion.*", "answers are graded in a process of burnish's own"),
    Ignored("reward_model.* reward.reward_model.*", WHY_OFF, unless="model_score_on"),
    Ignored("reward.num_workers reward.reward_manager.*", "each reward function has a process of its own"),
    Ignored("reward.sandbox_fusion.* sandbox_fusion.*", "answers are graded in a process of burnish's own"),
    Refused("distillation.enabled transfer_queue.enable", "there is no such feature", INSTEAD_DROP, ON_OFF),
    Ignored("distillation.* transfer_queue.* global_profiler.* skip.* ray_kwargs.* ray_init.*", WHY_OFF),
    Ignored("hydra.* _target_", "part of the other system's configuration reader"),
)
"""verl's keys that have no counterpart."""
