"""The torch models of both tiers, what a checkpoint says of them, and how a first tier begins from its teacher."""
