"""A plan from end to end before its model, data and hours are there: a plan enters, one of minutes leaves.

`plan` changes the plan and lays what is trained on, `questions` what is asked: official files and photographs that are
there, and where something lacks, files that `made` makes in the official forms, with drawn
pictures. What is made is marked so on the study's page.
"""
