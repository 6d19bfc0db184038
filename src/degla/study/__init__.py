"""ROOM 6 - study: turn a plan (recipes x settings x seeds) into one table, a frontier and paired tests.

Flow: plan, results -> table, frontier and tests

plan_file       fields that both kinds of plans share, and the reader of their files
plan            the plan file, validated                              (contract: `plan.Plan`)
grid            plan to runs: every arm, setting and seed with its full configuration
jobs            what processes receive and return
materials       pairs, negatives and benchmarks that the runs share; benchmark images among the pairs
tuning          one run in its process: fine-tune, measure, average; finished work is not repeated
workers         jobs distributed over workers, processes on this machine or tasks on a Ray cluster; one that fails does
                not stop the others
record          study.json: every value of every run, and its variance over questions
gather          results of the runs to that record
standings       record to one row per model: scores with intervals, joint score, cost; paired tests between arms
study           what the pages show of a record: table, tests, sources of variance, warnings, published tables with the
                study's own scores below; the best settings
page            the page, the frontier plot and all files of a study
conduct         all of the above in order; progress of the runs, on a terminal or as lines
rehearsal       a small version of a plan, to test it before its model, data and hours are available

Tasks in sequence, which share arms, tuning and workers with studies:

sequence_plan   the plan file, validated                (contract: `sequence_plan.SequencePlan`)
retention       scores of every task after every task, and their summaries; the page, plot, tables and JSON of all
sequence        plan to chains of jobs, one per arm and seed, each learning the tasks in turn; all of these in order
"""
