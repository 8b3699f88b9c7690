"""Who answers whom: the routing state's pure rules, its one Redis key and the reader every edge shares."""
