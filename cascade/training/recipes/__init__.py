"""What each command of `cascade-train` does.

exits, tag_exits             `cascade-train exits`
first_tier, tag_first_tier   `cascade-train first-tier`
self_sample                  `cascade-train self-sample`
tag_crf                      `cascade-train crf`
imitation                    what distilling a first tier is: options, loss, the teacher's answers
objectives                   what the exits are trained on: joint, two-stage, detached, distilled
word_pass                    one pass of a trained tagger over every word
sampling                     which words of a training batch stop after which layer
"""
