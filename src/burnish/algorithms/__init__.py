"""The mathematics, pure: tensors (or numbers) in, tensors (or numbers) out. No config, model, logger, rank or file.

    advantages   how much better was a rollout than its siblings          [B]    -> [B]
    surrogates   what the policy loses at each token, unreduced           [N]    -> [N]
    reductions   what each token weighs; sum(weights * loss) is the loss  mask   -> [N]
    kl           distance to another policy at each token, unreduced      [N]    -> [N]
    anchored     ADPO's listwise objective as an advantage                [B]    -> [B]
    temperature  its temperature for each group                           [P]    -> [P]
    mismatch     weights that correct for the engine's log-probabilities  [N]    -> [N]
    groups       membership by id
    shaping      additions to a completion's score, such as the overlong penalty
    scalarize    from the parts of a multi-objective reward to one total

Shape letters: N completion tokens (all sequences end to end), B sequences, P prompts (= groups).

To add one: write the function beside its kin, cite its source, test it with numbers worked out by hand, and give it a
name in the tables of `burnish.objective`.
"""
