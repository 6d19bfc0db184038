"""Run a plan end to end in minutes, before its model, data and hours are available.

`plan` shrinks the plan and prepares the training pairs; `questions` prepares the questions. Both use official files and
photographs if available. For missing ones, `made` generates files in the official formats, with drawn images.
Generated data is marked on the study's page.
"""
