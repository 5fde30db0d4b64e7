"""How far the nearest counterexample is: certified radius and adversarial distance, in four norms."""
