"""Who answers: a vLLM engine, an OpenAI-compatible endpoint, a simulated cluster engine, a scripted teacher."""
