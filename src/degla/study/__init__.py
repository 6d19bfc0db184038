"""ROOM 6 - study: a plan enters (recipes x settings x seeds); one table, a frontier and paired tests leave.

Flow: plan, results -> table, frontier and tests

plan_file       what plans of both kinds say, and the reading of their files
plan            the plan's file, validated                            (contract: `plan.Plan`)
grid            plan to runs: every arm, setting and seed with its full configuration
jobs            what processes are given and give back
materials       pairs, negatives and benchmarks that the runs share; images of the questions among the pairs
tuning          one run in its process: fine-tune, measure, average; what is done already is not done again
workers         jobs spread over workers, processes of this machine or tasks of a Ray cluster; one that fails does not
                stop the others
record          study.json: every value of every run, and what other questions would do to it
gather          results of the runs to that record
standings       the record to one row a model: scores with intervals, joint score, cost; paired tests between arms
study           what the pages show of a record: table, tests, sources of variance, warnings, published tables with the
                study's own scores below; the best settings
page            the page, the frontier's picture and all files of a study
conduct         all of the above in order; progress of the runs, on a terminal or as lines
rehearsal       the plan made small, before its model, data and hours are there

Tasks in sequence, which take plan's arms, tuning and workers:

sequence_plan   the plan's file, validated              (contract: `sequence_plan.SequencePlan`)
retention       scores of every task after every task, what sums them up; the page, picture, tables and JSON of all
sequence        plan to jobs, one an arm and seed, each learning one task after another; all of these in order
"""
