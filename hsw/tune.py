"""Tune: try configurations of a space, keep a journal, run the best again on fresh seeds."""

from __future__ import annotations

import sys

from hsw.cli.main import run_main

_HELP = """python -m hsw.tune [group=choice] [key=value] [key=<sweep>] [tune.<setting>=<value>] ...

Try configurations, each on several seeds, and run the best ones again on fresh seeds.

What varies is a sweep in Hydra's grammar, or stands in conf/space/<agent>.yaml:
  'algorithm.lr=tag(log, interval(1e-5, 1e-2))'  'agent.updates_per_step=interval(0.5, 2)'
  'algorithm.num_epochs=int(interval(1, 20))'    'storage.num_steps=range(32, 257, 32)'
  'storage.batch_size=choice(64, 128, 256)'      'network=choice(actor_critic, recurrent)'

Settings (and their defaults):
  tune.name       of the study, whose folder is tune/<name>; the same command goes on with it (<agent>_<env>)
  tune.dir        where studies are (tune)
  tune.space      a choice of conf/space (the agent's, unless the command line says what varies)
  tune.trials     how many configurations (20; of a grid all)
  tune.seeds      runs of each (2)
  tune.sampler    tpe, random or grid (tpe)
  tune.pruner     race: seeds are compared with the best trial's (Wilcoxon); halving: budgets grow; both; none (none)
  tune.workers    trials at a time (1)
  tune.metric     return or success (return)
  tune.last       a seed's score is the mean of so many of its last evaluations (1)
  tune.second     also minimise time, or steps to tune.threshold (none)
  tune.p          chance of a mistake with which a race is lost (0.1)
  tune.rungs, tune.reduction   of halving (3, 3)
  tune.rescale    with halving: where a schedule depends on the budget, rungs begin anew (false)
  tune.confirm, tune.confirm_seeds   the best so many trials run again on so many fresh seeds (3, 5)
  tune.baseline   and so does the configuration that nothing was varied in (true)

Flags: --allow PACKAGE, --config-dir FOLDER, --help. Exit codes are those of hsw.train.

python -m hsw.tune agent=ppo env=cartpole num_train_steps=4000 'algorithm.lr=tag(log, interval(1e-4, 1e-2))' \\
  tune.trials=3"""


def main() -> None:
    """Parse the command line, tune, print what came of it.

    Raises:
        ConfigError: If the command line cannot work, or optuna is not installed.
        ResourceError: If disk, memory or threads gave out.
        CorruptError: If the study's journal is damaged.
        Interrupted: If a signal stopped it; the same command goes on.
        SweepError: If no trial has a score: with the code of the first that failed.
    """
    if not sys.argv[1:] or {"--help", "-h"} & {*sys.argv[1:]}:
        print(_HELP)
        return
    from hsw.config.arguments import allowed_by_flag
    from hsw.config.files import refuse_secrets
    from hsw.tuning.settings import needs_optuna

    refuse_secrets(sys.argv[1:])
    needs_optuna()
    from hsw.tuning.tuner import tune

    tune(allowed_by_flag(sys.argv[1:]))


def cli() -> None:
    """main, with every error as one sentence and an exit code."""
    run_main(main)


if __name__ == "__main__":
    cli()
