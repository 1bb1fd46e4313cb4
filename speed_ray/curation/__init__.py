"""Select training examples: filters, deduplication, decontamination, margins, quotas and mined hard negatives."""
